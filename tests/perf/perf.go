// Package perf holds what Carillon promises about its resources, as tests
// without a clock; what needs one is measured by cmd/bench (make bench), and
// RESULTS.md keeps its figures.
package perf
