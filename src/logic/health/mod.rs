//! TODO-ROOM logic/health

pub mod attempt_recorder;
pub mod evidence;
pub mod failure_ratio;
pub mod health;
pub mod recovery;
