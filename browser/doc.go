// Package browser tests weft's status page in a real browser, Debian's Chromium, with real nodes. It is a
// module of its own: the library that drives the browser is no business of weft's.
package browser
