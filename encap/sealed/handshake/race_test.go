//go:build race

package handshake_test

// The race detector makes a handshake take ten times as long.
const manyNodes = 100
