// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/headgate/headgate/controller"
	"github.com/headgate/headgate/xds"
	"github.com/headgate/headgate/xds/server"
)

// locator finds the workload of the pod that a token is bound to, by its owners, never by what the
// client or the pod's annotations say.
type locator struct{ reader client.Reader }

var errNoWorkload = errors.New("the pod belongs to no revision of a Deployment")

// Locate implements server.Locator.
func (l locator) Locate(ctx context.Context, who server.Identity) (server.Key, error) {
	var pod corev1.Pod
	if err := l.reader.Get(ctx, types.NamespacedName{Namespace: who.Namespace, Name: who.Pod}, &pod); err != nil {
		return server.Key{}, fmt.Errorf("getting the pod: %w", err)
	}
	if string(pod.UID) != who.PodUID {
		return server.Key{}, fmt.Errorf("the pod's uid is %s, the token's %s", pod.UID, who.PodUID)
	}
	owner := metav1.GetControllerOf(&pod)
	if owner == nil || owner.Kind != "ReplicaSet" {
		return server.Key{}, errNoWorkload
	}
	var rs appsv1.ReplicaSet
	if err := l.reader.Get(ctx, types.NamespacedName{Namespace: who.Namespace, Name: owner.Name}, &rs); err != nil {
		return server.Key{}, fmt.Errorf("getting the replica set: %w", err)
	}
	deployment := metav1.GetControllerOf(&rs)
	if deployment == nil || deployment.Kind != "Deployment" {
		return server.Key{}, errNoWorkload
	}
	return server.Key{Namespace: who.Namespace, Name: deployment.Name, Revision: rs.Labels[appsv1.DefaultDeploymentUniqueLabelKey]}, nil
}

// configurations hands what the feeder derives to the local xDS server.
type configurations struct{ server *server.Server }

// Set implements controller.Configurations.
func (c configurations) Set(w xds.Workload) error { return c.server.Set(w) }

// Forget implements controller.Configurations.
func (c configurations) Forget(namespace, name, revision string) {
	c.server.Remove(server.Key{Namespace: namespace, Name: name, Revision: revision})
}

// acks tells what sidecars of a revision acknowledged, at whichever replica.
type acks struct {
	server   *server.Server
	replicas *server.Replicas
}

// Acks implements controller.Sidecars.
func (a *acks) Acks(workload types.NamespacedName, revision string) []controller.Ack {
	key := server.Key{Namespace: workload.Namespace, Name: workload.Name, Revision: revision}
	elsewhere, _ := a.replicas.Acks(key) // sidecars of a replica that can't be asked count as not connected; see Unheard
	var out []controller.Ack
	// While it is not known what is in force in a sidecar, its State names no peer, and so no weight of a rollout.
	for _, ack := range server.Latest(append(a.server.Acks(key), elsewhere...)) {
		out = append(out, controller.Ack{
			Pod: ack.Pod, Peer: ack.State.Peer, PeerWeight: int32(ack.State.PeerWeight), Over: ack.State.Over, Rejected: ack.Refused,
		})
	}
	return out
}

// Unheard implements controller.Sidecars.
func (a *acks) Unheard() string { return unheard(a.replicas) }

// unheard says which replicas can't be asked, and why; empty: all can.
func unheard(replicas *server.Replicas) string {
	_, unknown := replicas.Acks(server.Key{})
	var out []string
	for address, err := range unknown {
		if err != nil { // else it is about to be asked for the first time
			out = append(out, fmt.Sprintf("%s: %v", address, err))
		}
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}

// followEvery is how often the leader looks for other replicas; a new one serves no sidecar before it is ready.
const followEvery = 2 * time.Second

// follower makes the leader follow the acknowledgements of the other replicas.
type follower struct {
	reader   client.Reader
	replicas *server.Replicas
	options  Options
}

// Start implements manager.Runnable; runs on the leader.
func (f *follower) Start(ctx context.Context) error {
	defer f.replicas.Close()
	ticker := time.NewTicker(followEvery)
	defer ticker.Stop()
	said := ""
	for {
		addresses, err := f.others(ctx)
		if err != nil {
			log.FromContext(ctx).Error(err, "Finding other replicas")
		} else {
			f.replicas.Follow(ctx, addresses)
		}
		if now := unheard(f.replicas); now != said {
			log.FromContext(ctx).Info("Replicas that can't be asked what their sidecars acknowledged", "replicas", now)
			said = now
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// others are the xDS addresses of the other pods of the control plane that run.
func (f *follower) others(ctx context.Context) ([]string, error) {
	var pods corev1.PodList
	if err := f.reader.List(ctx, &pods, client.InNamespace(f.options.Namespace), client.MatchingLabels{"app.kubernetes.io/name": "headgate"}); err != nil {
		return nil, fmt.Errorf("listing the pods of the control plane: %w", err)
	}
	own := os.Getenv("POD_NAME")
	var out []string
	for _, pod := range pods.Items {
		if pod.Name != own && pod.Status.Phase == corev1.PodRunning && pod.Status.PodIP != "" {
			out = append(out, net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(f.options.XDSPort)))
		}
	}
	slices.Sort(out)
	return out, nil
}

// readToken reads this replica's own pod-bound token; the kubelet renews it.
func readToken(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("reading the replica's token: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
