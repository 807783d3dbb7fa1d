//! TODO-ROOM logic/health

pub mod attempt_recorder;
pub mod endpoint_health;
pub mod evidence;
pub mod failure_ratio;
pub mod recovery;
