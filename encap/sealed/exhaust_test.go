package sealed_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The sizes at which every sequence of counters is tried.
const (
	smallWindow = 4
	smallWord   = 2
	smallLimit  = 11 // counters from here on are refused
	sequence    = 6  // counters in a sequence, each from 0 to smallLimit
)

// defects are mistakes that the check must find, each as what is replaced in window.go.
var defects = []struct{ name, old, new string }{
	{"one counter too many is remembered", "w.next-counter <= Window", "w.next-counter <= Window+1"},
	{"one too few", "w.next-counter <= Window", "w.next-counter < Window"},
	{"no room for the newest word", "Window/wordBits + 1", "Window/wordBits"},
	{"the newest word is cleared", "(w.next+wordBits-1)/wordBits", "w.next/wordBits"},
	{"the next word is not cleared", "(w.next+wordBits-1)/wordBits", "(w.next+wordBits-1)/wordBits+1"},
	{"counter's own word is not cleared", "i <= to", "i < to"},
	{"a long jump clears too little", "to - windowWords + 1", "to - windowWords + 2"},
	{"next is the counter itself", "w.next = counter + 1", "w.next = counter"},
	{"no limit", "counter < counterLimit", "true"},
	{"a counter that was seen is fresh", "== 0", ">= 0"},
}

// TestWindowAgainstEverySequence compares window.go itself, made small, with a set: whatever
// order counters arrive in, each is taken once, and none that is too old or too large. The
// same check must fail for window.go with each of the defects.
func TestWindowAgainstEverySequence(t *testing.T) {
	source, err := os.ReadFile("window.go")
	if err != nil {
		t.Fatal(err)
	}
	replace := func(text, old, with string) string {
		t.Helper()
		if !strings.Contains(text, old) {
			t.Fatalf("window.go has no %q to replace", old)
		}
		return strings.ReplaceAll(text, old, with)
	}
	small := replace(string(source), "const Window = 8192", fmt.Sprintf("const Window = %d", smallWindow))
	small = replace(small, "wordBits    = 64", fmt.Sprintf("wordBits    = %d", smallWord))

	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check := fmt.Sprintf(checkSource, smallLimit, sequence)
	imports, calls := "", ""
	add := func(name, window string) {
		write(name+"/window.go", replace(window, "package sealed", "package "+name))
		write(name+"/check.go", replace(check, "package sealed", "package "+name))
		imports += fmt.Sprintf("import %q\n", "windows/"+name)
		calls += fmt.Sprintf("fmt.Println(%s.Check())\n", name)
	}
	add("right", small)
	for i, d := range defects {
		add(fmt.Sprintf("defect%d", i), replace(small, d.old, d.new))
	}
	write("go.mod", "module windows\n\ngo 1.26\n")
	write("main.go", "package main\n\nimport \"fmt\"\n"+imports+"\nfunc main() {\n"+calls+"}\n")
	cmd := exec.CommandContext(t.Context(), "go", "run", ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 1+len(defects) {
		t.Fatalf("%d lines:\n%s", len(lines), out)
	}
	if lines[0] != "ok" {
		t.Errorf("window.go: %s", lines[0])
	}
	for i, d := range defects {
		if lines[i+1] == "ok" {
			t.Errorf("not found: %s", d.name)
		} else {
			t.Logf("%s: %s", d.name, lines[i+1])
		}
	}
}

// checkSource tries every sequence, each beginning of one once.
const checkSource = `package sealed

import "fmt"

const (
	counterLimit = %d
	sequence     = %d
)

// Check returns ok, or the first sequence of which the last counter is judged wrongly.
func Check() string { return try(window{}, nil) }

func try(w window, before []uint64) string {
	if len(before) == sequence {
		return "ok"
	}
	for counter := uint64(0); counter <= counterLimit; counter++ {
		next, path := w, append(before[:len(before):len(before)], counter)
		if got, want := accept(&next, counter), right(before, counter); got != want {
			return fmt.Sprintf("the last of %%v is taken: %%v, want %%v", path, got, want)
		}
		if result := try(next, path); result != "ok" {
			return result
		}
	}
	return "ok"
}

func accept(w *window, counter uint64) bool {
	fresh := w.fresh(counter)
	if fresh {
		w.mark(counter)
	}
	return fresh
}

// right says by the set of what came before whether a counter is to be taken.
func right(before []uint64, counter uint64) bool {
	next := uint64(0)
	for i, c := range before {
		if !right(before[:i], c) {
			continue
		}
		if c == counter {
			return false
		}
		next = max(next, c+1)
	}
	return counter < counterLimit && counter+Window >= next
}
`
