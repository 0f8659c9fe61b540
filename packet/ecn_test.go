package packet_test

import (
	"bytes"
	"testing"

	"weft/packet"
	"weft/packet/packettest"
)

// withClass returns a packet of either family with a traffic class.
func withClass(v6 bool, class uint8) []byte {
	from, to := a4, b4
	if v6 {
		from, to = a6, b6
	}
	p := tcp(from, to, 10)
	p.TOS = class
	return p.Bytes()
}

func TestMarksOfTheUnderlayAreMergedAsInRFC6040(t *testing.T) {
	const not, ect1, ect0, ce, dropped = 0, 1, 2, 3, 99
	want := [4][4]uint8{ // figure 4: rows by the inner field, columns by the outer
		not:  {not: not, ect0: not, ect1: not, ce: dropped},
		ect0: {not: ect0, ect0: ect0, ect1: ect1, ce: ce},
		ect1: {not: ect1, ect0: ect1, ect1: ect1, ce: ce},
		ce:   {not: ce, ect0: ce, ect1: ce, ce: ce},
	}
	const dscp = 46 << 2
	for _, v6 := range []bool{false, true} {
		for inner, row := range want {
			for outer, merged := range row {
				b := withClass(v6, dscp|uint8(inner))
				keep := packet.MergeECN(b, 10<<2|uint8(outer))
				if keep != (merged != dropped) {
					t.Errorf("IPv6 %v, inner %02b, outer %02b: kept %v", v6, inner, outer, keep)
				}
				if keep && !bytes.Equal(b, withClass(v6, dscp|merged)) {
					t.Errorf("IPv6 %v, inner %02b, outer %02b: %x", v6, inner, outer, b[:20])
				}
			}
		}
	}
}

func TestMarksAreNotMergedIntoWhatIsNoPacket(t *testing.T) {
	for n := range 20 {
		b := withClass(false, 2)[:n]
		if !packet.MergeECN(b, 3) || !bytes.Equal(b, withClass(false, 2)[:n]) {
			t.Errorf("%d bytes were touched", n)
		}
	}
}

func TestTheTrafficClassIsReadOfBothFamilies(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		if got := packet.TrafficClass(withClass(v6, 0xb9)); got != 0xb9 {
			t.Errorf("IPv6 %v: %#x", v6, got)
		}
	}
	if got := packet.TrafficClass(packettest.UDP(a4, b4, 1)); got != 0 {
		t.Errorf("%#x of a packet without one", got)
	}
}
