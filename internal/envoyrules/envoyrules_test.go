// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package envoyrules

import (
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
)

func TestRulesReachWhatIsPacked(t *testing.T) {
	router, err := anypb.New(&routerv3.Router{StrictCheckHeaders: []string{"no such header"}})
	if err != nil {
		t.Fatal(err)
	}
	filter := &listenerv3.Filter{Name: "router", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: router}}
	if filter.ValidateAll() != nil || Check(filter) == nil {
		t.Error("a router that checks an unknown header is packed in a filter, and nobody minds")
	}
}

func TestWhatHasNoRulesIsNoConfigurationOfEnvoy(t *testing.T) {
	if Check(&emptypb.Empty{}) == nil {
		t.Error("an empty message passes")
	}
}
