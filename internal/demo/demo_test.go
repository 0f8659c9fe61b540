package main

import (
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"weft/internal/stage"
	"weft/internal/stage/stagetest"
	"weft/internal/testnet"
)

// buildPrograms builds the demo and what it runs into a folder that stays, so that only what has
// changed is linked again.
func buildPrograms(t *testing.T) string {
	t.Helper()
	bin, err := filepath.Abs("../../bin/test/demo")
	if err != nil {
		t.Fatal(err)
	}
	stagetest.Build(t, bin, ".", "weft/cmd/...", "weft/internal/demo")
	return bin
}

func TestInterruptedDemoLeavesNothing(t *testing.T) {
	bin := buildPrograms(t)
	moments := []string{
		"1  The topology", "2  Bring it up", "node2  weftd is ready", "pod b2",
		"3  What can be read", "4  Probes between all pods and hosts", "5  Which address", "6  How fast",
	}
	sample := []string{moments[0], moments[2], moments[5]}
	for _, moment := range testnet.Sampled(sample, moments) {
		t.Run(moment, func(t *testing.T) { stagetest.Interrupt(t, bin, moment) })
	}
}

// TestKeptDemoShowsAPage: the address that the demo prints works from the host after the demo has ended,
// until all is removed.
func TestKeptDemoShowsAPage(t *testing.T) {
	bin := buildPrograms(t)
	status, output := stagetest.Run(t, bin, nil, "--keep")
	t.Cleanup(func() { stagetest.Run(t, bin, nil, "--clean") })
	address := regexp.MustCompile(`http://127\.0\.0\.1:\d+/`).FindString(output)
	if status != 0 || address == "" {
		t.Fatalf("exit status %d:\n%s", status, output)
	}
	response, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK || !strings.Contains(string(page), "<h1>node1</h1>") {
		t.Errorf("%s answers %s (%v):\n%s", address, response.Status, err, page)
	}
	if status, output := stagetest.Run(t, bin, nil, "--clean"); status != 0 {
		t.Errorf("--clean: exit status %d:\n%s", status, output)
	}
	stagetest.MustRunNothing(t, bin)
	if response, err := http.Get(address); err == nil {
		response.Body.Close()
		t.Errorf("%s still answers", address)
	}
}

func TestFailedDemoShowsTheDaemonsLog(t *testing.T) {
	bin := buildPrograms(t)
	status, output := stagetest.Run(t, bin, nil, "--driver", "pigeon")
	if status != stage.ExitFailure || !strings.Contains(output, `"pigeon"`) || !strings.Contains(output, stagetest.NothingLeft) {
		t.Errorf("exit status %d:\n%s", status, output)
	}
	if strings.Contains(output, "\x1b") {
		t.Errorf("escape sequences in a pipe: %q", output)
	}
	stagetest.MustRunNothing(t, bin)
}

func TestDemoRefusesWhatItCannotShow(t *testing.T) {
	bin := buildPrograms(t)
	stagetest.MustRefuse(t, bin, `unknown encapsulation "pigeon"; there are sealed and vxlan`, "--encap", "pigeon")
	stagetest.MustRefuse(t, bin, `unknown control source "pigeon"; there are file, etcd and kubernetes`, "--control", "pigeon")
	stagetest.MustRefuse(t, bin, `Kubernetes has a demo of its own: make demo CONTROL=kubernetes`, "--control", "kubernetes")
	stagetest.MustRefuse(t, bin, `unexpected argument "pigeon"`, "pigeon")
}
