//go:build race

package etcd

// manyNodes in one process, under the race detector, take ten times the processor time.
const manyNodes = 60
