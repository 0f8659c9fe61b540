// Package version says which weft this is.
package version

import (
	"runtime"
	"runtime/debug"
	"strconv"
	"time"
)

// Set by the linker (see the Makefile), from scripts/version. A plain `go build` leaves them.
var (
	// Version is a semantic version: https://semver.org.
	Version = "devel"

	commit     string
	commitDate string // in seconds since 1970
)

// Info is what a program knows of how it was built.
type Info struct {
	Version    string    `json:"version"`
	Commit     string    `json:"commit,omitempty"`
	CommitDate time.Time `json:"commitDate,omitzero"`
	Go         string    `json:"go"`
	Platform   string    `json:"platform"` // as in linux/amd64

	// Modules are those that the program is linked with, by their paths.
	Modules []Module `json:"modules"`
}

// Module is a module of Go's, and its version.
type Module struct {
	Path    string `json:"path"`
	Version string `json:"version"`
}

// Read returns what this program knows of itself.
func Read() Info {
	info := Info{Version: Version, Commit: commit, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Modules: []Module{}}
	if date, err := parseSeconds(commitDate); err == nil {
		info.CommitDate = date
	}
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return info
	}
	for _, m := range build.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		info.Modules = append(info.Modules, Module{Path: m.Path, Version: m.Version})
	}
	if info.Commit == "" {
		info.fromGo(build.Settings)
	}
	return info
}

// fromGo takes what `go build` notes in a git repository.
func (i *Info) fromGo(settings []debug.BuildSetting) {
	for _, s := range settings {
		switch s.Key {
		case "vcs.revision":
			i.Commit = s.Value
		case "vcs.time":
			i.CommitDate, _ = time.Parse(time.RFC3339, s.Value) // else it stays unknown
		}
	}
}

func parseSeconds(text string) (time.Time, error) {
	seconds, err := strconv.ParseInt(text, 10, 64)
	return time.Unix(seconds, 0).UTC(), err
}
