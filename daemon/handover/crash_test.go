package handover

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/encap/sealed"
)

// prepare makes the folder of a hand-over: the keys that the old process begins with, and what the
// other node sends.
func prepare(t *testing.T) (dir string) {
	t.Helper()
	dir, here, there := t.TempDir(), newEnd(self, other), newEnd(other, self)
	var there2here, here2there [32]byte
	_, _ = rand.Read(there2here[:])
	_, _ = rand.Read(here2there[:])
	begin := func(e *end, send, receive [32]byte) *sealed.Epoch {
		epoch, err := e.peers.Find(e.peer.Key).Begin(&sealed.Secrets{Send: send, Receive: receive}, e.peer.Endpoint.Addr())
		if err != nil {
			t.Fatal(err)
		}
		return epoch
	}
	atHere, atThere := begin(here, here2there, there2here), begin(there, there2here, here2there)
	atHere.Expect(lanes, atThere.Session())
	atThere.Expect(lanes, atHere.Session())
	atHere.Use(func([]byte) {})
	atThere.Use(func([]byte) {})
	var inbound strings.Builder
	for i := range 20 {
		fmt.Fprintf(&inbound, "%x\n", there.seal(i%lanes))
	}
	for name, content := range map[string][]byte{"inbound": []byte(inbound.String()), "keys": here.peers.Export(), "log": nil} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// start starts a process of the test, with variables and with descriptors as systemd passes them.
func start(t *testing.T, role, dir string, variables []string, files ...*os.File) (wait func() string) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// systemd says whom the descriptors are for, and only the shell knows that before.
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `LISTEN_PID=$$ exec "$0"`, program)
	cmd.Env = append(append(os.Environ(), envRole+"="+role, envDir+"="+dir), variables...)
	cmd.ExtraFiles = files
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() string {
		if err := cmd.Wait(); err != nil {
			return fmt.Sprintf("%s: %v: %s", role, err, stderr.String())
		}
		return ""
	}
}

// expectOnce fails if a counter was used twice or a datagram opened twice, and returns how many
// were sealed.
func expectOnce(t *testing.T, dir string) (sealed int) {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(log)) {
		if seen[line] {
			t.Errorf("twice: %s", line)
		}
		seen[line] = true
		if strings.HasPrefix(line, "sealed") {
			sealed++
		}
	}
	if !seen["opened 0\n"] || !seen["opened 19\n"] {
		t.Errorf("not all was opened:\n%s", log)
	}
	return sealed
}

// Where a process may die in a hand-over by the socket.
var (
	oldSteps  = []string{"worked", "exported", "sealed", "issued", "sent", "handed over"}
	nextSteps = []string{"received", "checked", "claimed", "imported", "worked"}
)

func TestCrashWhileHandingOver(t *testing.T) {
	t.Parallel()
	for _, killOld := range append([]string{""}, oldSteps...) {
		for _, killNext := range append([]string{""}, nextSteps...) {
			t.Run(fmt.Sprintf("old %s, next %s", killOld, killNext), func(t *testing.T) {
				t.Parallel()
				dir := prepare(t)
				old := start(t, "old, asked", dir, []string{envKill + "=" + killOld})
				for killOld != "worked" && !exists(filepath.Join(dir, SocketName)) {
					time.Sleep(time.Millisecond)
				}
				next := start(t, "next, asks", dir, []string{envKill + "=" + killNext})
				nextEnd, oldEnd := next(), old()
				t.Log(oldEnd, nextEnd)
				lives := expectOnce(t, dir) / 10
				kept := killNext == "received" || killNext == "checked"
				if wentOn := exists(filepath.Join(dir, "went on")); killOld == "" && wentOn != kept {
					t.Errorf("the old process goes on: %v", wentOn)
				}
				if killOld == "" && killNext == "" && lives != 2 {
					t.Errorf("%d processes had the keys", lives)
				}
			})
		}
	}
}

// The next process may be slow as well as dead: the old one goes on, and then the next can't.
func TestTheSlowProcessDoesNotGetTheKeys(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"received", "checked"} {
		dir := prepare(t)
		old := start(t, "old, asked", dir, nil)
		for !exists(filepath.Join(dir, SocketName)) {
			time.Sleep(time.Millisecond)
		}
		next := start(t, "next, asks", dir, []string{envWait + "=" + at + " " + filepath.Join(dir, "went on")})
		if end := old(); end != "" {
			t.Error(end)
		}
		if end := next(); !strings.Contains(end, ErrClaimed.Error()) {
			t.Errorf("the slow one: %s", end)
		}
		if lives := expectOnce(t, dir) / 10; lives != 2 {
			t.Errorf("%d times a process had the keys", lives)
		}
	}
}
