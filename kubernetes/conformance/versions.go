package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// version is that of a program that took part.
type version struct{ Program, Version string }

// versions asks the programs that ran.
func (c *cluster) versions(ctx context.Context) ([]version, error) {
	server, err := c.Admin.Discovery().ServerVersion()
	if err != nil {
		return nil, err
	}
	all := []version{{"Kubernetes", server.GitVersion}}
	for _, p := range []struct {
		name, program, argument string
		// word is which one of what it prints is the version, and end what follows the version in it.
		word int
		end  string
	}{
		// The commit is of no use on a page that a later one adds.
		{"weft", filepath.Join(c.programs.bin, "weftd"), "--version", 1, "+"},
		{"CoreDNS", filepath.Join(c.programs.suite, "coredns"), "-version", 0, "+"},
		{"containerd", "containerd", "--version", 2, "~"},
		{"Linux", "uname", "-r", 0, "-"},
	} {
		out, err := exec.CommandContext(ctx, p.program, p.argument).Output()
		if err != nil {
			return nil, fmt.Errorf("ask %s for its version: %w", p.name, err)
		}
		words := strings.Fields(string(out))
		if len(words) <= p.word {
			return nil, fmt.Errorf("ask %s for its version: it says %q", p.name, out)
		}
		number, _, _ := strings.Cut(strings.TrimPrefix(words[p.word], p.name+"-"), p.end)
		all = append(all, version{p.name, number})
	}
	return all, nil
}
