// Package nftable asks the kernel which nftables table stands, over netlink and without
// the program nft: the CNI plugin does so for each pod. It only reads, in the network
// namespace of the calling thread.
package nftable

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Identity distinguishes one making of a table from another. The kernel forgets tables at a
// reboot, so an Identity that the kernel confirms was made since then.
type Identity struct {
	// Comment is the table's comment, by which its maker recognizes it.
	Comment string `json:"comment"`

	// Rules is the number of rules in all of its chains: flushing a chain leaves the
	// table and its comment.
	Rules int `json:"rules"`
}

// nftaTableUserdata is NFTA_TABLE_USERDATA (linux/netfilter/nf_tables.h), which x/sys lacks.
const nftaTableUserdata = 6

// ErrAbsent says that the kernel has no such table.
var ErrAbsent = errors.New("the table does not exist")

// Family is the family of a table, as nft(8) names it.
type Family string

// The families of weft's tables.
const (
	Inet   Family = "inet"
	Bridge Family = "bridge"
)

func (f Family) number() uint8 {
	if f == Bridge {
		return unix.NFPROTO_BRIDGE
	}
	return unix.NFPROTO_INET
}

// Of returns the identity of a table, or an error that wraps ErrAbsent. It needs CAP_NET_ADMIN.
func Of(family Family, name string) (Identity, error) {
	full := string(family) + " " + name
	var id Identity
	tables, err := request(family.number(), unix.NFT_MSG_GETTABLE, 0, nl.NewRtAttr(unix.NFTA_TABLE_NAME, nl.ZeroTerminated(name)))
	switch {
	case errors.Is(err, unix.ENOENT):
		return id, fmt.Errorf("nftables table %s: %w", full, ErrAbsent)
	case err != nil:
		return id, fmt.Errorf("read the nftables table %s: %w", full, err)
	}
	for _, table := range tables {
		if id.Comment, err = comment(table); err != nil {
			return id, fmt.Errorf("read the nftables table %s: %w", full, err)
		}
	}
	rules, err := request(family.number(), unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP, nl.NewRtAttr(unix.NFTA_RULE_TABLE, nl.ZeroTerminated(name)))
	if err != nil {
		return id, fmt.Errorf("read the rules of the nftables table %s: %w", full, err)
	}
	for _, rule := range rules { // kernels before 6.5 list those of other tables too
		if is, err := isOf(rule, name); err != nil {
			return id, fmt.Errorf("read the rules of the nftables table %s: %w", full, err)
		} else if is {
			id.Rules++
		}
	}
	return id, nil
}

func request(family uint8, message, flags int, attribute *nl.RtAttr) ([][]byte, error) {
	r := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|message, flags)
	r.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
	r.AddData(attribute)
	return r.Execute(unix.NETLINK_NETFILTER, 0)
}

func attributes(message []byte) (map[uint16][]byte, error) {
	if len(message) < nl.SizeofNfgenmsg {
		return nil, errors.New("the kernel's answer is too short")
	}
	parsed, err := nl.ParseRouteAttr(message[nl.SizeofNfgenmsg:])
	if err != nil {
		return nil, fmt.Errorf("parse the kernel's answer: %w", err)
	}
	values := make(map[uint16][]byte, len(parsed))
	for _, a := range parsed {
		values[a.Attr.Type&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)] = a.Value
	}
	return values, nil
}

func isOf(rule []byte, table string) (bool, error) {
	values, err := attributes(rule)
	return err == nil && string(bytes.TrimRight(values[unix.NFTA_RULE_TABLE], "\x00")) == table, err
}

// comment reads the comment out of a table's user data, which are elements of one byte of
// type, one of length, and the value (libnftnl, src/udata.c). Type 0 is the comment.
func comment(table []byte) (string, error) {
	values, err := attributes(table)
	if err != nil {
		return "", err
	}
	data := values[nftaTableUserdata]
	for len(data) >= 2 && len(data) >= 2+int(data[1]) {
		kind, value := data[0], data[2:2+int(data[1])]
		if kind == 0 {
			return string(bytes.TrimRight(value, "\x00")), nil
		}
		data = data[2+len(value):]
	}
	return "", nil
}
