package cniplugin

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"weft/ipam"
)

func TestThePodsNameIsReadFromCNIArgs(t *testing.T) {
	tests := map[string]string{
		"":                                     "",
		"IgnoreUnknown=1":                      "",
		"K8S_POD_NAME=p":                       "",
		"K8S_POD_NAMESPACE=n;K8S_POD_NAME=p":   "n/p",
		"K8S_POD_NAME=p;X;K8S_POD_NAMESPACE=n": "n/p",
	}
	for args, want := range tests {
		if got := podOf(parseArgs(args)); got != want {
			t.Errorf("%q: got %q, want %q", args, got, want)
		}
	}
}

func TestAttachmentsThatCannotExistAreRefused(t *testing.T) {
	tests := []struct {
		containerID, ifName string
		valid               bool
	}{
		{"c1", "eth0", true},
		{strings.Repeat("c", maxContainerID), "a-15-byte-name.", true},
		{"", "eth0", false},
		{"../c1", "eth0", false},
		{"c1/..", "eth0", false},
		{strings.Repeat("c", maxContainerID+1), "eth0", false},
		{"c1", "", false},
		{"c1", "..", false},
		{"c1", "eth/0", false},
		{"c1", "a-16-byte-name..", false},
		{"c1", "eth%d", false},
		{"c1", "lo", false},
		{"c1", "all", false},
		{"c1", "default", false},
	}
	for _, tt := range tests {
		if err := validateAttachment(tt.containerID, tt.ifName); (err == nil) != tt.valid {
			t.Errorf("%q, %q: got %v, want valid: %t", tt.containerID, tt.ifName, err, tt.valid)
		}
	}
}

func TestErrorsCarryTheCodesOfTheSpecification(t *testing.T) {
	tests := []struct {
		err  error
		want uint
	}{
		{ipam.ErrLocked, types.ErrTryAgainLater},
		{ipam.ErrExhausted, types.ErrTryAgainLater},
		{ipam.ErrCorrupt, CodeCorrupt},
		{&os.PathError{Op: "write", Err: unix.ENOSPC}, types.ErrIOFailure},
		{&os.LinkError{Op: "rename", Err: unix.EROFS}, types.ErrIOFailure},
		{unix.EIO, types.ErrIOFailure},
		{errors.New("anything"), types.ErrInternal},
		{withCode(CodeWiring, unix.EIO), CodeWiring},
	}
	for _, tt := range tests {
		err := cniError(fmt.Errorf("context: %w", tt.err))
		requireCode(t, err, tt.want)
		if !strings.HasPrefix(err.Error(), "context: ") {
			t.Errorf("%q lost its context", err)
		}
	}
	if cniError(nil) != nil || withCode(CodeWiring, nil) != nil {
		t.Error("no error became one")
	}
	if !errors.Is(withCode(CodeWiring, unix.EIO), unix.EIO) {
		t.Error("the cause is lost")
	}
}
