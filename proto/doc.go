// Package proto holds what crosses a process boundary in Carillon: NATS
// subjects, envelopes, requests and replies, codes. Its packages know no
// sockets, no clock and no service; only publisher and app.Registry talk to
// NATS.
//
// Compatibility: fields are only added, numbers are never reused, a reader
// ignores what it does not know. Golden bytes live in testdata.
package proto
