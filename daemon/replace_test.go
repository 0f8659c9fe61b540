package daemon

import (
	"slices"
	"testing"
)

// TestSuccessorArguments: they don't grow with each hand-over.
func TestSuccessorArguments(t *testing.T) {
	want := []string{"--config", "weft.yaml", "--takeover"}
	first := successorArguments(want[:2:2])
	for _, got := range [][]string{first, successorArguments(first)} {
		if !slices.Equal(got, want) {
			t.Errorf("arguments %q, want %q", got, want)
		}
	}
}
