// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package deptest

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/headgate/headgate/"

func TestPurePackagesReachNothing(t *testing.T) {
	const (
		clientGo          = "k8s.io/client-go/"
		controllerRuntime = "sigs.k8s.io/controller-runtime/"
		grpc              = "google.golang.org/grpc"
		prometheus        = "github.com/prometheus/client_golang/"
		own               = module
	)
	for name, tc := range map[string]struct {
		banned []string
		// except are those of the banned that are meant.
		except []string
	}{
		"rollout": {
			banned: []string{clientGo, controllerRuntime, grpc, prometheus, own},
			except: []string{module + "rollout", module + "analysis", module + "api/v1alpha1"},
		},
		"analysis": {
			banned: []string{clientGo, controllerRuntime, grpc, prometheus, own},
			except: []string{module + "analysis", module + "api/v1alpha1"},
		},
		"api/v1alpha1": {
			banned: []string{clientGo, controllerRuntime, grpc, prometheus, own},
			except: []string{module + "api/v1alpha1"},
		},
		"policy": {
			banned: []string{clientGo, controllerRuntime, grpc, own},
			except: []string{module + "policy", module + "analysis", module + "analysis/prometheus", module + "api/v1alpha1"},
		},
		"replay": {
			banned: []string{controllerRuntime, module + "controller", module + "webhook"},
		},
		// Envoy's types come with gRPC's, so only a part can be asked of xds.
		"xds": {
			banned: []string{clientGo, controllerRuntime, prometheus, own},
			except: []string{module + "xds"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			deps := dependencies(t, module+name)
			if !slices.Contains(deps, "fmt") {
				t.Fatalf("the dependencies of %s do not even contain fmt: %v", name, deps)
			}
			for _, dep := range deps {
				banned := func(prefix string) bool { return strings.HasPrefix(dep, prefix) }
				if slices.ContainsFunc(tc.banned, banned) && !slices.Contains(tc.except, dep) {
					t.Errorf("%s reaches %s; go list -deps shows the way", name, dep)
				}
			}
		})
	}
}

// TestTheTestSees: a package of which it is known that it reaches the clients.
func TestTheTestSees(t *testing.T) {
	if deps := dependencies(t, module+"controller"); !slices.Contains(deps, "sigs.k8s.io/controller-runtime/pkg/client") {
		t.Errorf("the controller reaches no client; dependencies: %v", deps)
	}
}

func dependencies(t *testing.T, pkg string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", pkg).Output()
	if err != nil {
		t.Fatalf("go list -deps %s: %v", pkg, err)
	}
	return strings.Fields(string(out))
}
