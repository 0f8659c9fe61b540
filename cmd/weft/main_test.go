package main

import (
	"errors"
	"strings"
	"testing"
)

func TestErrorsControlNoTerminal(t *testing.T) {
	for _, tc := range []struct {
		err    error
		want   string
		status int
	}{
		{failure{errors.New("node2 says: \x1b[2J\u009bno")}, "weft: node2 says: \ufffd[2J\ufffdno\n", exitFailure},
		{errors.New("unknown flag \x1b"), "weft: unknown flag \ufffd; `weft --help` shows how to call it\n", exitUsage},
	} {
		var out strings.Builder
		if status := complain(&out, newCommand(), tc.err); status != tc.status || out.String() != tc.want {
			t.Errorf("%q: exit status %d, %q; want %d, %q", tc.err, status, out.String(), tc.status, tc.want)
		}
	}
}
