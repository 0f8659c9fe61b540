//go:build !race

package handshake_test

const manyNodes = 500
