// Package apipb is the server API of Centrifugo as protobuf and gRPC. It is
// generated from api.proto; nothing else is in it.
//
// To generate it again, have protoc, protoc-gen-go v1.36.12 and
// protoc-gen-go-grpc v1.6.2 in PATH.
package apipb

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative api.proto
