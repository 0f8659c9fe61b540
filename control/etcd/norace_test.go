//go:build !race

package etcd

const manyNodes = 200
