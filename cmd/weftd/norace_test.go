//go:build !race

package main_test

const manyNodes = 5000
