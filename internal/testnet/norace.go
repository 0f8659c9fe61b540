//go:build !race

package testnet

// UnderRace is whether the race detector watches. With it, and beside the tests of other
// packages, there is time for fewer nodes.
const UnderRace = false
