// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package fidelity

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/kubernetes/pkg/controller/podautoscaler/metrics"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/internal/simulate"
)

// seat is where a controller sits: a client that writes to the simulated cluster, and caches that have no watch behind them.
type seat struct {
	client    *fake.Clientset
	informers informers.SharedInformerFactory
	cluster   *simulate.Cluster
}

func newSeat() *seat {
	s := &seat{client: fake.NewClientset()}
	s.client.ReactionChain = nil // what the fake would store itself
	s.client.AddReactor("*", "*", s.act)
	s.informers = informers.NewSharedInformerFactory(s.client, 0)
	return s
}

// act does to the cluster what a controller asks for. One call is made at a time.
func (s *seat) act(a ktesting.Action) (handled bool, answer runtime.Object, err error) {
	switch a := a.(type) {
	case ktesting.CreateActionImpl:
		o := a.GetObject().(client.Object)
		o.SetNamespace(a.GetNamespace())
		return true, o, s.cluster.Create(o)
	case ktesting.UpdateActionImpl:
		o := a.GetObject().(client.Object)
		return true, o, s.cluster.Update(o, a.GetSubresource() == "status")
	case ktesting.DeleteActionImpl:
		var o client.Object = &corev1.Pod{}
		if a.GetResource().Resource == "replicasets" {
			o = &appsv1.ReplicaSet{}
		}
		o.SetNamespace(a.GetNamespace())
		o.SetName(a.GetName())
		return true, nil, s.cluster.Delete(o)
	}
	panic(fmt.Sprintf("%s of %s was not to be expected", a.GetVerb(), a.GetResource().Resource))
}

// refresh waits until it is now in the cluster, and lets the caches hold what the controller has seen.
func (s *seat) refresh() {
	time.Sleep(time.Until(s.cluster.Now()))
	s.client.ClearActions()
	s.fill(s.cluster.Objects())
}

func (s *seat) fill(objects []client.Object) {
	var deployments, replicaSets, pods []any
	for _, o := range objects {
		switch o.(type) {
		case *appsv1.Deployment:
			deployments = append(deployments, o)
		case *appsv1.ReplicaSet:
			replicaSets = append(replicaSets, o)
		case *corev1.Pod:
			pods = append(pods, o)
		}
	}
	apps := s.informers.Apps().V1()
	for indexer, held := range map[cache.Indexer][]any{
		apps.Deployments().Informer().GetIndexer():             deployments,
		apps.ReplicaSets().Informer().GetIndexer():             replicaSets,
		s.informers.Core().V1().Pods().Informer().GetIndexer(): pods,
	} {
		if err := indexer.Replace(held, ""); err != nil {
			panic(err) // objects of the API have keys
		}
	}
}

// sortedPods lists pods by name. Which one of equal pods goes first is up to the order of a map otherwise.
type sortedPods struct{ coreinformers.PodInformer }

// Informer implements coreinformers.PodInformer.
func (s sortedPods) Informer() cache.SharedIndexInformer {
	return sortedInformer{s.PodInformer.Informer()}
}

type sortedInformer struct{ cache.SharedIndexInformer }

// GetIndexer implements cache.SharedIndexInformer.
func (s sortedInformer) GetIndexer() cache.Indexer {
	return sortedIndexer{s.SharedIndexInformer.GetIndexer()}
}

type sortedIndexer struct{ cache.Indexer }

// ByIndex implements cache.Indexer.
func (s sortedIndexer) ByIndex(index, value string) ([]any, error) {
	objects, err := s.Indexer.ByIndex(index, value)
	slices.SortFunc(objects, func(a, b any) int {
		return strings.Compare(a.(client.Object).GetName(), b.(client.Object).GetName())
	})
	return objects, err
}

// measured is a metrics server that has just measured what the simulation says.
type measured struct {
	metrics.MetricsClient

	usage map[string]int64
	now   time.Time
}

// GetResourceMetric implements metrics.MetricsClient.
func (m measured) GetResourceMetric(context.Context, corev1.ResourceName, string, labels.Selector, string) (metrics.PodMetricsInfo, time.Time, error) {
	out := metrics.PodMetricsInfo{}
	for pod, used := range m.usage {
		out[pod] = metrics.PodMetric{Timestamp: m.now, Window: simulate.MetricWindow, Value: used}
	}
	return out, m.now, nil
}
