package licences

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const mit = `MIT License

Copyright (c) 2027 The Authors

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
`

const isc = `Copyright (c) 2027 The Authors

Permission to use, copy, modify, and/or distribute this software for any
purpose with or without fee is hereby granted, provided that the above
copyright notice and this permission notice appear in all copies.

THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL WARRANTIES WITH
REGARD TO THIS SOFTWARE INCLUDING ALL IMPLIED WARRANTIES OF MERCHANTABILITY
AND FITNESS. IN NO EVENT SHALL THE AUTHOR BE LIABLE FOR ANY SPECIAL, DIRECT,
INDIRECT, OR CONSEQUENTIAL DAMAGES OR ANY DAMAGES WHATSOEVER RESULTING FROM
LOSS OF USE, DATA OR PROFITS, WHETHER IN AN ACTION OF CONTRACT, NEGLIGENCE OR
OTHER TORTIOUS ACTION, ARISING OUT OF OR IN CONNECTION WITH THE USE OR
PERFORMANCE OF THIS SOFTWARE.
`

const gpl = `This program is free software: you can redistribute it and/or modify
it under the terms of the GNU General Public License as published by
the Free Software Foundation, either version 3 of the License, or
(at your option) any later version.
`

// TestCollect: weft may be linked only with modules whose licences are known and allowed.
func TestCollect(t *testing.T) {
	for _, test := range []struct {
		name  string
		files map[string]string // of the module example.org/used, of which the package below is imported
		want  []string
		err   string
	}{
		{"allowed", map[string]string{"LICENSE": mit}, []string{"MIT"}, ""},
		{"another name", map[string]string{"COPYING.txt": isc}, []string{"ISC"}, ""},
		{"the package has another than the module", map[string]string{"LICENSE": mit, "below/LICENSE": isc}, []string{"ISC", "MIT"}, ""},
		{"a package that is not imported has another", map[string]string{"LICENSE": mit, "other/LICENSE": gpl, "other/o.go": "package other"}, []string{"MIT"}, ""},
		{"a notice is no licence", map[string]string{"NOTICE": mit}, nil, "example.org/used v1.0.0 has no licence file"},
		{"none", nil, nil, "has no licence file; use another module"},
		{"not allowed", map[string]string{"LICENSE": gpl}, nil, "its licence GPL-3.0-or-later is not among those allowed, Apache-2.0,"},
		{"one of two is not allowed", map[string]string{"LICENSE": mit, "LICENSE.gpl": gpl}, nil, "is not among those allowed"},
		{"unknown", map[string]string{"LICENSE": "You may use this on Sundays."}, nil, "LICENSE is no known licence"},
	} {
		t.Run(test.name, func(t *testing.T) {
			modules, err := Collect(t.Context(), newModule(t, test.files), []string{"amd64", "arm64"}, "./...")
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("the error is %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(modules) != 2 || modules[0].Path != "example.org/used" || !slices.Equal(modules[0].Licences, test.want) {
				t.Errorf("found %+v", modules)
			}
			if len(modules) == 2 && (modules[1].Path != "std" || !slices.Equal(modules[1].Licences, []string{"BSD-3-Clause"})) {
				t.Errorf("Go is %s, under %s", modules[1].Path, modules[1].Licences)
			}
		})
	}
}

// newModule imports a package of another module, which has some files.
func newModule(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("main/go.mod", "module main\n\ngo 1.26.0\n\nrequire example.org/used v1.0.0\n\nreplace example.org/used v1.0.0 => ../used\n")
	write("main/main.go", "package main\n\nimport (\n\t_ \"strings\"\n\n\t_ \"example.org/used/below\"\n)\n\nfunc main() {}\n")
	write("used/go.mod", "module example.org/used\n\ngo 1.26.0\n")
	write("used/below/below.go", "package below\n")
	for name, content := range files {
		write(filepath.Join("used", name), content)
	}
	return filepath.Join(dir, "main")
}

func TestTextHasEachLicenceOnce(t *testing.T) {
	text := Text([]Module{
		{Path: "example.org/a", Version: "v1.0.0", Licences: []string{"MIT"}, Files: []File{{"LICENSE", mit}, {"NOTICE", "All is well."}}},
		{Path: "example.org/b", Version: "v1.0.0", Licences: []string{"MIT"}, Files: []File{{"COPYING", mit}}},
	})
	for _, want := range []string{
		"example.org/a v1.0.0: MIT\nexample.org/b v1.0.0: MIT\n",
		fmt.Sprintf("\n%s\nexample.org/a: LICENSE\nexample.org/b: COPYING\n%[1]s\n\nMIT License", strings.Repeat("=", 80)),
		"All is well.",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the text has no %q:\n%s", want, text)
		}
	}
	if n := strings.Count(text, "Permission is hereby granted"); n != 1 {
		t.Errorf("the licence is there %d times", n)
	}
}
