package warning

import (
	"maps"
	"slices"
	"testing"
)

func TestWarningsBeginAndEnd(t *testing.T) {
	a, b, c := Warning{"a", "1"}, Warning{"b", "1"}, Warning{"b", "2"}
	before := Sort([]Warning{b, a, b})
	if !slices.Equal(before, []Warning{a, b}) {
		t.Fatalf("sorted: %v", before)
	}
	now := Sort([]Warning{c, b})
	begun, over := News(before, now)
	if !slices.Equal(begun, []Warning{c}) || !slices.Equal(over, []Warning{a}) {
		t.Errorf("begun %v, over %v", begun, over)
	}
	if counts := Counts(now); !maps.Equal(counts, map[string]int{"b": 2}) {
		t.Errorf("counts: %v", counts)
	}
	if begun, over := News(now, now); len(begun)+len(over) > 0 {
		t.Errorf("nothing has changed, but begun %v, over %v", begun, over)
	}
}
