package testnet

import "os"

// Torture reports whether tests try everything: each system call instead of some, ten
// thousand calls instead of hundreds. `make torture` sets TORTURE=1 for that; `make
// test` takes a sample, so that it stays affordable on a slow machine.
var Torture = os.Getenv("TORTURE") != ""

// Sampled returns some, or all where Torture is set.
func Sampled[T any](some, all T) T {
	if Torture {
		return all
	}
	return some
}
