// Package strict holds the rules for what people write: how a problem with it is
// reported, which name they may have meant, and what an address, a prefix or a node's
// name must look like. Configuration and control sources share it, so that the
// same mistake reads the same everywhere.
//
// It never corrects a value: a mistake is refused with the remedy in its message.
package strict

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxProblems is how many problems are reported at once. One wrong cluster CIDR makes
// a problem of every node; the first ones say enough.
const maxProblems = 50

// problem is one thing that is wrong with what people wrote.
type problem struct {
	origin string
	err    error
}

// Problems collects all that is wrong, so that one reading of the message is
// enough to put it right. The zero value is empty.
type Problems struct {
	problems []problem
	more     int
}

// Add adds a problem; err says what is wrong, and the remedy.
//
// Origin is where it was written: "/etc/weft/weft.yaml:7", "--tun-driver",
// "WEFT_TUN_DRIVER". Subject is what it is about: a key ("tun.driver") or a node's
// name. Both may be empty.
func (p *Problems) Add(origin, subject string, err error) {
	if len(p.problems) == maxProblems {
		p.more++
		return
	}
	if subject != "" {
		err = fmt.Errorf("%s: %w", subject, err)
	}
	if origin != "" {
		err = fmt.Errorf("%s: %w", origin, err)
	}
	p.problems = append(p.problems, problem{origin, err})
}

// Addf is Add with fmt.Errorf.
func (p *Problems) Addf(origin, subject, format string, args ...any) {
	p.Add(origin, subject, fmt.Errorf(format, args...))
}

// Err returns all problems joined, one a line, or nil if there are none. They are
// sorted by origin, and those of one file by its lines.
func (p *Problems) Err() error {
	if len(p.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(p.problems, func(a, b problem) int {
		aFile, aLine := splitOrigin(a.origin)
		bFile, bLine := splitOrigin(b.origin)
		return cmp.Or(cmp.Compare(aFile, bFile), cmp.Compare(aLine, bLine))
	})
	var errs []error
	for _, problem := range p.problems {
		errs = append(errs, problem.err)
	}
	if p.more > 0 {
		errs = append(errs, fmt.Errorf("and %d more problems", p.more))
	}
	return errors.Join(errs...)
}

// splitOrigin returns file and line of "file:line"; other origins have no line.
func splitOrigin(origin string) (file string, line int) {
	if colon := strings.LastIndexByte(origin, ':'); colon >= 0 {
		if line, err := strconv.Atoi(origin[colon+1:]); err == nil {
			return origin[:colon], line
		}
	}
	return origin, 0
}

// Quote returns s in quotes, fit for a message whatever it contains: escaped, and
// cut if it is long.
func Quote(s string) string {
	const limit = 64
	if len(s) > limit {
		return fmt.Sprintf("%q...", s[:limit])
	}
	return fmt.Sprintf("%q", s)
}
