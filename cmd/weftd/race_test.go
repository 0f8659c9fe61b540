//go:build race

package main_test

// Beside the other tests, and under the race detector, a machine has no time for 5,000.
const manyNodes = 1000
