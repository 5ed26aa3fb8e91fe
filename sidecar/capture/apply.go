// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// tableName is the nftables table (family inet) that belongs to Headgate alone.
const tableName = "headgate"

// Apply makes the network namespace of the calling thread redirect as rules say. Whatever the table
// held before is replaced in the same transaction, so that applying twice is harmless and no packet
// meets a half-built table. Other tables are not touched.
//
// It needs CAP_NET_ADMIN in that namespace, and a kernel that can do NAT in the inet family (5.2 or
// newer); the error says which step the kernel refused.
func Apply(rules []Redirect) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("opening netlink: %w", err)
	}
	return apply(conn, rules)
}

func apply(conn *nftables.Conn, rules []Redirect) error {
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: tableName}
	// Adding before deleting makes the deletion valid when there was no table.
	conn.AddTable(table)
	conn.DelTable(table)
	conn.AddTable(table)
	chain := conn.AddChain(&nftables.Chain{
		Name:     "prerouting",
		Table:    table,
		Type:     nftables.ChainTypeNAT,
		Hooknum:  nftables.ChainHookPrerouting,
		Priority: nftables.ChainPriorityNATDest,
	})
	for _, r := range rules {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: r.expressions()})
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("programming nftables table inet %s (needs CAP_NET_ADMIN and kernel 5.2 or newer): %w", tableName, err)
	}
	return nil
}

// expressions are `meta l4proto tcp tcp dport FROM redirect to :TO`.
func (r Redirect) expressions() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		// The destination port: two bytes at offset 2 of a TCP header (RFC 9293 §3.1).
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(r.From)},
		&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(r.To)},
		&expr.Redir{RegisterProtoMin: 1},
	}
}
