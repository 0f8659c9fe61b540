// Package advertise finds the address by which other nodes reach this one, for control
// sources in which nodes register themselves.
//
// A Rule is what the configuration says about it. Unless it names the address, the
// kernel's own routes decide: weft sends by them, so an address that they use as source
// is one that others can answer to. Where they leave a doubt, Choose does not guess. It
// fails, and its error lists the addresses there are and how to write which one is meant.
//
// The package only asks the kernel, by rtnetlink, in the namespace of the calling thread.
// It sends no packet, looks no name up, and changes nothing. It does not find the address
// that a NAT gives to the node, and does not test whether others really reach an address.
package advertise
