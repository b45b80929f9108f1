// Package perf holds what Carillon promises about its resources, as tests
// without a clock; what needs one is measured by cmd/perf (make perf), and
// RESULTS.md keeps its figures.
package perf
