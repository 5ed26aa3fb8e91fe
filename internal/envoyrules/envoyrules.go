// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package envoyrules asks the rules that Envoy has for its configuration (protoc-gen-validate) about messages, so that
// tests of whoever makes them can.
package envoyrules

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/types/known/anypb"
)

// CheckPacked is Check for a message that is packed itself, as resources are.
func CheckPacked(m *anypb.Any) error {
	unpacked, err := m.UnmarshalNew()
	if err != nil {
		return fmt.Errorf("unpacking %s: %w", m.GetTypeUrl(), err)
	}
	return Check(unpacked)
}

// Check returns which of Envoy's rules a message breaks, or, which its own ValidateAll does not see, any message that is
// packed in it: filters, matchers, transport sockets. A message of a type that has no rules is an error too.
func Check(m proto.Message) error {
	return protorange.Range(m.ProtoReflect(), func(p protopath.Values) error {
		last := p.Index(-1)
		if kind := last.Step.Kind(); kind != protopath.RootStep && kind != protopath.AnyExpandStep {
			return nil
		}
		packed, ok := last.Value.Message().Interface().(interface{ ValidateAll() error })
		if !ok {
			return fmt.Errorf("%s has no rules of Envoy's", p.Path)
		}
		if err := packed.ValidateAll(); err != nil {
			return fmt.Errorf("%s: %w", p.Path, err)
		}
		return nil
	})
}
