//! TODO-ROOM logic/orders

pub mod operator_orders;
