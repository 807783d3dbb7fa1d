//! Clients and endpoints that others wrote and that know nothing of each other's habits here: gRPC by
//! grpcio, WebSocket by Python's websockets, each on both sides of gapless.

mod grpc;
mod python_peer;
mod websocket;
