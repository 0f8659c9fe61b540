package main

import (
	"os"
	"path/filepath"
	"testing"

	"weft/internal/stage/stagetest"
)

// buildPrograms builds the demo and what it runs. Kubernetes' own programs are built by make.
func buildPrograms(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	stagetest.Build(t, bin, "../..", "weft/cmd/...")
	stagetest.Build(t, bin, ".", "weft/kubernetes/demo")
	programs, err := filepath.Abs("../../bin/kubernetes")
	if err == nil {
		err = os.Symlink(programs, filepath.Join(bin, "kubernetes"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

func TestInterruptedDemoLeavesNothing(t *testing.T) {
	bin := buildPrograms(t)
	for _, moment := range []string{"1  The topology", "deploy/kubernetes/rights is applied", "3  A Deployment"} {
		t.Run(moment, func(t *testing.T) { stagetest.Interrupt(t, bin, moment, "--root", "../..") })
	}
}

// The demo refuses them before it makes anything.
func TestDemoRefusesUnknownArguments(t *testing.T) {
	bin := buildPrograms(t)
	stagetest.MustRefuse(t, bin, `unknown encapsulation "pigeon"; there are sealed and vxlan`, "--encap", "pigeon")
	stagetest.MustRefuse(t, bin, `unexpected argument "pigeon"`, "pigeon")
}
