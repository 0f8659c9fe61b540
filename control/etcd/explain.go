package etcd

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"weft/internal/family"
)

// explained is an error with its remedy. Two with the same remedy are the same to people.
type explained struct {
	task   string
	err    error
	remedy string
}

func (e *explained) Error() string { return fmt.Sprintf("%s: %v; %s", e.task, e.err, e.remedy) }
func (e *explained) Unwrap() error { return e.err }

// fileError is an error of this node's files, which says itself what to do.
type fileError struct{ error }

// explain says what to do about an error of etcd's client.
func (s *Source) explain(task string, err error) error {
	if _, ok := errors.AsType[fileError](err); ok {
		return fmt.Errorf("etcd: %s: %w", task, err)
	}
	return &explained{task: "etcd: " + task, err: err, remedy: s.options.remedy(err)}
}

func (o *Options) remedy(err error) string {
	text := err.Error()
	switch {
	case errors.Is(err, rpctypes.ErrPermissionDenied):
		return fmt.Sprintf("a node's etcd user needs a role that may read the prefix %s, and write the keys %s, %s and %s: see docs/SECURITY.md",
			o.folder(), o.entryKey(o.Node), o.claimKey(family.IPv4, o.Node), o.claimKey(family.IPv6, o.Node))
	case errors.Is(err, rpctypes.ErrAuthFailed):
		return fmt.Sprintf("etcd does not accept the user %s with this password; correct them", o.Username)
	case errors.Is(err, rpctypes.ErrUserEmpty):
		return "etcd requires authentication; give this node a user name and password, or a certificate whose common name is the user"
	case errors.Is(err, rpctypes.ErrNoSpace):
		return "etcd's database is full, and rejects writes; compact and defragment it or raise its quota, then run `etcdctl alarm disarm`"
	case contains(text, "certificate has expired or is not yet valid"):
		return "set this host's clock if it is wrong (`weft doctor`); otherwise renew etcd's certificate"
	case contains(text, "x509:", "failed to verify certificate", "first record does not look like a TLS handshake"):
		return fmt.Sprintf("etcd's certificate is not valid here; name the CA that signed it (now: %s), and the members as the certificate names them", orElse(o.CAFile, "the CAs of this host"))
	case contains(text, "remote error: tls", "bad certificate"):
		return fmt.Sprintf("etcd rejects this node's certificate (%s); name one that etcd's client CA signed and that has not expired", orElse(o.CertFile, "there is none"))
	default:
		return fmt.Sprintf("check that a majority of the members is up, and that this node reaches them at %s", strings.Join(o.Endpoints, ", "))
	}
}

func orElse(text, fallback string) string {
	if text == "" {
		return fallback
	}
	return text
}

// kindOf returns what an error is about, to people: two with one remedy are of one kind.
func kindOf(err error) string {
	if e, ok := errors.AsType[*explained](err); ok {
		return e.remedy
	}
	return err.Error()
}

// contains reports whether text has one of the parts.
func contains(text string, parts ...string) bool {
	return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(text, part) })
}
