//go:build race

package session_test

const withRaceDetector = true
