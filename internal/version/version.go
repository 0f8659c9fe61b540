// Package version says which weft this is.
package version

// Version is set by the linker (see the Makefile); a plain `go build` leaves it.
var Version = "devel"
