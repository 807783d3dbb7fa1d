//! Independent implementations: gRPC by
//! grpcio, WebSocket by Python's websockets, each on both sides of gapless.

mod grpc;
mod python_peer;
mod websocket;
