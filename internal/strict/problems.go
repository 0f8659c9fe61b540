// Package strict holds the rules for what people write: how a problem with it is
// told, which name they may have meant, and what an address, a prefix or a node's
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

// maxProblems is how many problems are told at once. One wrong cluster CIDR makes
// a problem of every node; the first ones say enough.
const maxProblems = 50

// Problem is one thing that is wrong with what somebody wrote.
type Problem struct {
	// Origin is where it was written: "/etc/weft/weft.yaml:7", "--tun-driver",
	// "WEFT_TUN_DRIVER". Empty if it was written nowhere.
	Origin string

	// Subject is what it is about: a key ("tun.driver") or a node's name. May be empty.
	Subject string

	// Err says what is wrong, and the remedy.
	Err error
}

func (p *Problem) Error() string {
	var b strings.Builder
	for _, s := range []string{p.Origin, p.Subject} {
		if s != "" {
			b.WriteString(s)
			b.WriteString(": ")
		}
	}
	b.WriteString(p.Err.Error())
	return b.String()
}

func (p *Problem) Unwrap() error { return p.Err }

// Problems collects all that is wrong, so that one reading of the message is
// enough to put it right. The zero value is empty.
type Problems struct {
	problems []*Problem
	more     int
}

// Add adds a problem. Origin and subject may be empty.
func (p *Problems) Add(origin, subject string, err error) {
	if len(p.problems) == maxProblems {
		p.more++
		return
	}
	p.problems = append(p.problems, &Problem{Origin: origin, Subject: subject, Err: err})
}

// Addf is Add with fmt.Errorf.
func (p *Problems) Addf(origin, subject, format string, args ...any) {
	p.Add(origin, subject, fmt.Errorf(format, args...))
}

// Err returns all problems joined, one a line, or nil if there are none. Those in
// one file stand in the order of its lines; otherwise the order of adding is kept.
func (p *Problems) Err() error {
	if len(p.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(p.problems, func(a, b *Problem) int {
		aFile, aLine := splitOrigin(a.Origin)
		bFile, bLine := splitOrigin(b.Origin)
		return cmp.Or(cmp.Compare(aFile, bFile), cmp.Compare(aLine, bLine))
	})
	var errs []error
	for _, problem := range p.problems {
		errs = append(errs, problem)
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
