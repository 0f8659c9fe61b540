// Package nftable asks the kernel what an nftables table is, over netlink and without the
// program nft: the CNI plugin does so for each pod, and weftd whenever a table may have
// changed. It only reads, in the network namespace of the calling thread.
package nftable

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weft/internal/rtnetlink"
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
func Of(family Family, name string) (id Identity, err error) {
	t := table{family, name}
	itself, err := t.itself()
	if err != nil {
		return id, err
	}
	rules, err := t.dump(unix.NFT_MSG_GETRULE)
	if err != nil {
		return id, err
	}
	return identity(itself, rules), nil
}

// Comment returns a table's comment, without its rules. The error wraps ErrAbsent if the table
// does not exist.
func Comment(family Family, name string) (string, error) {
	itself, err := table{family, name}.itself()
	if err != nil {
		return "", err
	}
	return comment(itself), nil
}

func identity(itself object, rules []object) Identity {
	return Identity{Comment: comment(itself), Rules: len(rules)}
}

// Counter is what a named counter has counted.
type Counter struct{ Packets, Bytes uint64 }

// Counters returns what the named counters of a table have counted; none if there is no table.
func Counters(family Family, name string) (map[string]Counter, error) {
	t := table{family, name}
	objects, err := t.dump(unix.NFT_MSG_GETOBJ)
	if err != nil {
		return nil, err
	}
	counters := make(map[string]Counter)
	for _, object := range objects {
		if data, err := parse(object.values[unix.NFTA_OBJ_DATA]); err != nil {
			return nil, t.unread(err)
		} else if len(data[unix.NFTA_COUNTER_PACKETS]) == 8 && len(data[unix.NFTA_COUNTER_BYTES]) == 8 {
			counters[object.text(unix.NFTA_OBJ_NAME)] = Counter{
				Packets: binary.BigEndian.Uint64(data[unix.NFTA_COUNTER_PACKETS]),
				Bytes:   binary.BigEndian.Uint64(data[unix.NFTA_COUNTER_BYTES]),
			}
		}
	}
	return counters, nil
}

// Contents are digests of what the kernel says of a table: of each set by its name, and of the
// rest by "". While nothing changes the table they stay the same, whatever packets pass: what
// counters count is not in them, nor are elements of the sets that rules fill.
type Contents map[string][sha256.Size]byte

// ContentsOf returns the contents of a table and its identity, or an error that wraps ErrAbsent.
func ContentsOf(family Family, name string) (id Identity, contents Contents, err error) {
	t := table{family, name}
	itself, err := t.itself()
	if err != nil {
		return id, nil, err
	}
	chains, err := t.dump(unix.NFT_MSG_GETCHAIN)
	if err != nil {
		return id, nil, err
	}
	rules, err := t.dump(unix.NFT_MSG_GETRULE)
	if err != nil {
		return id, nil, err
	}
	rest := sha256.New()
	for _, o := range slices.Concat([]object{itself}, chains, rules) {
		rest.Write(o.raw)
	}
	contents = Contents{"": [sha256.Size]byte(rest.Sum(nil))}
	sets, err := t.dump(unix.NFT_MSG_GETSET)
	if err != nil {
		return id, nil, err
	}
	for _, set := range sets {
		name := set.text(unix.NFTA_SET_NAME)
		if contents[name], err = t.contentsOfSet(name, set); err != nil {
			return id, nil, err
		}
	}
	return identity(itself, rules), contents, nil
}

func (t table) contentsOfSet(name string, set object) (digest [sha256.Size]byte, err error) {
	if flags := set.values[unix.NFTA_SET_FLAGS]; len(flags) == 4 && binary.BigEndian.Uint32(flags)&unix.NFT_SET_EVAL != 0 {
		return digest, nil // rules fill it
	}
	lists, err := t.dump(unix.NFT_MSG_GETSETELEM, nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_SET, nl.ZeroTerminated(name)))
	if err != nil {
		return digest, err
	}
	var elements []string
	for _, list := range lists {
		listed, err := nl.ParseRouteAttr(list.values[unix.NFTA_SET_ELEM_LIST_ELEMENTS])
		if err != nil {
			return digest, t.unread(err)
		}
		for _, e := range listed {
			elements = append(elements, string(e.Value))
		}
	}
	slices.Sort(elements) // the kernel's order is a hash table's
	sum := sha256.New()
	sum.Write(set.raw)
	for _, e := range elements {
		sum.Write([]byte(e))
	}
	return [sha256.Size]byte(sum.Sum(nil)), nil
}

// table is one table of the kernel.
type table struct {
	family Family
	name   string
}

func (t table) unread(err error) error {
	return fmt.Errorf("read the nftables table %s %s: %w", t.family, t.name, err)
}

// object is what the kernel says of one object of a table.
type object struct {
	raw    []byte // the attributes
	values map[uint16][]byte
}

func (o object) text(attribute uint16) string {
	return string(bytes.TrimRight(o.values[attribute], "\x00"))
}

// itself returns the table's own object, or an error that wraps ErrAbsent.
func (t table) itself() (object, error) {
	found, err := t.ask(unix.NFT_MSG_GETTABLE, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return object{}, fmt.Errorf("nftables table %s %s: %w", t.family, t.name, ErrAbsent)
	case err != nil:
		return object{}, t.unread(err)
	case len(found) != 1:
		return object{}, t.unread(fmt.Errorf("%d answers of the kernel", len(found)))
	}
	return found[0], nil
}

// tableOf is the attribute that names an object's table, the same for all kinds of objects.
const tableOf = unix.NFTA_TABLE_NAME

// dump returns the table's objects of one kind.
func (t table) dump(kind int, selectors ...*nl.RtAttr) ([]object, error) {
	listed, err := rtnetlink.Dump(func() ([]object, error) { return t.ask(kind, unix.NLM_F_DUMP, selectors...) })
	if err != nil {
		return nil, t.unread(err)
	}
	// Kernels before 6.5 list the rules of other tables too.
	return slices.DeleteFunc(listed, func(o object) bool { return o.text(tableOf) != t.name }), nil
}

func (t table) ask(kind, flags int, selectors ...*nl.RtAttr) ([]object, error) {
	r := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags)
	r.AddData(&nl.Nfgenmsg{NfgenFamily: t.family.number(), Version: nl.NFNETLINK_V0})
	r.AddData(nl.NewRtAttr(tableOf, nl.ZeroTerminated(t.name)))
	for _, s := range selectors {
		r.AddData(s)
	}
	answers, err := r.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return nil, err
	}
	objects := make([]object, len(answers))
	for i, answer := range answers {
		if len(answer) < nl.SizeofNfgenmsg {
			return nil, errors.New("the kernel's answer is too short")
		}
		raw := answer[nl.SizeofNfgenmsg:]
		values, err := parse(raw)
		if err != nil {
			return nil, err
		}
		objects[i] = object{raw, values}
	}
	return objects, nil
}

func parse(raw []byte) (map[uint16][]byte, error) {
	parsed, err := nl.ParseRouteAttr(raw)
	if err != nil {
		return nil, fmt.Errorf("parse the kernel's answer: %w", err)
	}
	values := make(map[uint16][]byte, len(parsed))
	for _, a := range parsed {
		values[a.Attr.Type&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)] = a.Value
	}
	return values, nil
}

// comment reads the comment out of a table's user data, which are elements of one byte of
// type, one of length, and the value (libnftnl, src/udata.c). Type 0 is the comment.
func comment(table object) string {
	data := table.values[nftaTableUserdata]
	for len(data) >= 2 && len(data) >= 2+int(data[1]) {
		kind, value := data[0], data[2:2+int(data[1])]
		if kind == 0 {
			return string(bytes.TrimRight(value, "\x00"))
		}
		data = data[2+len(value):]
	}
	return ""
}
