// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package fidelity

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/e2e/harness"
	"github.com/headgate/headgate/internal/simulate"
)

// plane is a namespace of a real control plane, in which one history after the other happens.
type plane struct {
	*harness.Cluster

	namespace, node string
	informers       informers.SharedInformerFactory
	// news has room for one: something changed since it was last read.
	news chan struct{}
	// name is of the Deployment; played is how many there were.
	name   string
	played int
}

// within is how long controllers may take to come to rest; they need a tenth of a second.
const within = 20 * time.Second

func newPlane(ctx context.Context, c *harness.Cluster, namespace, node string) (*plane, error) {
	p := &plane{Cluster: c, namespace: namespace, node: node, news: make(chan struct{}, 1)}
	p.informers = informers.NewSharedInformerFactoryWithOptions(c.Kube, 0, informers.WithNamespace(namespace))
	changed := func() {
		select {
		case p.news <- struct{}{}:
		default:
		}
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { changed() }, UpdateFunc: func(_, _ any) { changed() }, DeleteFunc: func(any) { changed() },
	}
	apps, core := p.informers.Apps().V1(), p.informers.Core().V1()
	var failed error
	for _, i := range []cache.SharedIndexInformer{
		apps.Deployments().Informer(), apps.ReplicaSets().Informer(), core.Pods().Informer(), core.ServiceAccounts().Informer(),
	} {
		_, err := i.AddEventHandler(handler)
		failed = errors.Join(failed, err)
	}
	p.informers.Start(ctx.Done())
	p.informers.WaitForCacheSync(ctx.Done())
	// No pod can be made before there is the account that it runs as.
	return p, errors.Join(failed, p.await(ctx, func() bool {
		accounts, err := core.ServiceAccounts().Lister().List(labels.Everything())
		return err == nil && len(accounts) > 0
	}))
}

// errTime: what was waited for did not come.
var errTime = errors.New("it did not come to that in time")

func (p *plane) await(ctx context.Context, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for !ok() {
		select {
		case <-p.news:
		case <-ctx.Done():
			return errors.Join(errTime, ctx.Err())
		}
	}
	return nil
}

// objects are what the watches have seen.
func (p *plane) objects() (out []client.Object) {
	apps := p.informers.Apps().V1()
	for _, i := range []cache.SharedIndexInformer{
		apps.Deployments().Informer(), apps.ReplicaSets().Informer(), p.informers.Core().V1().Pods().Informer(),
	} {
		for _, o := range i.GetStore().List() {
			out = append(out, o.(client.Object))
		}
	}
	return out
}

// play lets a history happen to the models and here. It returns after how many lines they differed, and how; an empty difference
// means that they were the same throughout, compared as often as lines had anybody to happen to.
func (p *plane) play(ctx context.Context, h simulate.History) (lines, compared int, difference string, err error) {
	p.played++
	p.name = fmt.Sprintf("web-%d", p.played)
	model := simulate.NewAlone()
	for i, line := range h {
		if err := p.nextSecond(ctx); err != nil {
			return i, compared, "", err
		}
		done, err := model.Do(line)
		if err != nil {
			return i, compared, "", err
		}
		difference, err := p.follow(ctx, line, done, model)
		if err != nil || difference != "" {
			return i + 1, compared, difference, err
		}
		if done && deploymentIn(model.Objects()) != nil {
			compared++
		}
	}
	return len(h), compared, "", p.clear(ctx)
}

// nextSecond waits until a ReplicaSet that is made now is not as old as another one: of equally old ones the first by name comes
// first, and names are not the same here.
func (p *plane) nextSecond(ctx context.Context) error {
	var last time.Time
	for _, o := range p.objects() {
		if rs, ok := o.(*appsv1.ReplicaSet); ok && rs.CreationTimestamp.After(last) {
			last = rs.CreationTimestamp.Time
		}
	}
	timer := time.NewTimer(time.Until(last.Add(time.Second)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// follow lets a line happen here that has happened to the model, and waits until it has come to the same.
func (p *plane) follow(ctx context.Context, line string, done bool, model *simulate.Alone) (difference string, err error) {
	want := deploymentIn(model.Objects())
	if want == nil {
		return "", nil // said before the Deployment is created
	}
	refused, err := p.happens(ctx, line, done, want)
	if err != nil {
		return "", fmt.Errorf("%s: %w", line, err)
	}
	if refused == done {
		return fmt.Sprintf("the model did it: %t, the cluster did it: %t", done, !refused), nil
	}
	same := func() bool {
		objects := p.objects()
		return simulate.AtRest(objects) && simulate.Describe(objects) == simulate.Describe(model.Objects())
	}
	if p.await(ctx, same) == nil {
		return "", nil
	}
	objects := p.objects()
	return fmt.Sprintf("(- model, + cluster, which is at rest: %t)\n%s", simulate.AtRest(objects),
		cmp.Diff(strings.Split(simulate.Describe(model.Objects()), "\n"), strings.Split(simulate.Describe(objects), "\n"))), ctx.Err()
}

// happens lets a line happen. What could not happen to the model is left out, but kubectl has to refuse it too.
func (p *plane) happens(ctx context.Context, line string, done bool, want *appsv1.Deployment) (refused bool, err error) {
	words := strings.Fields(line)
	switch {
	case words[0] == "undo":
		undo := p.RunKubectl(ctx, "", "--namespace", p.namespace, "rollout", "undo", "deployment/"+p.name)
		return undo.Exit != 0, nil
	case !done:
		return true, nil
	case words[0] == "create":
		return false, p.create(ctx, want)
	}
	if act, ok := podActs[words[0]]; ok {
		pod := simulate.PodOf(p.objects(), words[1], act.in)
		if pod == nil {
			return true, nil
		}
		return false, act.does(ctx, p, pod)
	}
	return false, p.write(ctx, want)
}

// create makes the model's Deployment. Its pods have a node, which nobody looks after, so that no scheduler is needed, and so that
// they do not go at once when they are deleted; and whatever is said about that node, they stay.
func (p *plane) create(ctx context.Context, want *appsv1.Deployment) error {
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: p.name}, Spec: *want.Spec.DeepCopy()}
	d.Spec.Template.Spec.NodeName = p.node
	d.Spec.Template.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	return p.Client.Create(ctx, d)
}

// write makes the Deployment what the user of the model has made his.
func (p *plane) write(ctx context.Context, want *appsv1.Deployment) error {
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		d := &appsv1.Deployment{}
		if err := p.Client.Get(ctx, client.ObjectKey{Namespace: p.namespace, Name: p.name}, d); err != nil {
			return err
		}
		spec, image := want.DeepCopy().Spec, want.Spec.Template.Spec.Containers[0].Image
		d.Spec.Replicas, d.Spec.Paused, d.Spec.Strategy = spec.Replicas, spec.Paused, spec.Strategy
		d.Spec.RevisionHistoryLimit, d.Spec.MinReadySeconds = spec.RevisionHistoryLimit, spec.MinReadySeconds
		d.Spec.ProgressDeadlineSeconds, d.Spec.Template.Spec.Containers[0].Image = spec.ProgressDeadlineSeconds, image
		if told, ok := want.Annotations[simulate.Annotation]; ok {
			metav1.SetMetaDataAnnotation(&d.ObjectMeta, simulate.Annotation, told)
		}
		return p.Client.Update(ctx, d)
	})
}

// podActs are what happens to a pod in some state; as in simulate.Alone.
var podActs = map[string]struct {
	in   simulate.PodState
	does func(context.Context, *plane, *corev1.Pod) error
}{
	"ready":        {simulate.Unready, becomes(corev1.PodRunning, corev1.ConditionTrue, 0)},
	"long-ready":   {simulate.Unready, becomes(corev1.PodRunning, corev1.ConditionTrue, simulate.Age)},
	"unready":      {simulate.Ready, becomes(corev1.PodRunning, corev1.ConditionFalse, 0)},
	"evict":        {simulate.Ready, becomes(corev1.PodFailed, corev1.ConditionFalse, 0)},
	"kill":         {simulate.Ready, deleted()},
	"kill-unready": {simulate.Unready, deleted()},
	"end":          {simulate.Ending, deleted(client.GracePeriodSeconds(0))},
}

// becomes writes what a kubelet would.
func becomes(phase corev1.PodPhase, ready corev1.ConditionStatus, ago time.Duration) func(context.Context, *plane, *corev1.Pod) error {
	return func(ctx context.Context, p *plane, pod *corev1.Pod) error {
		next := pod.DeepCopy()
		next.Status.Phase = phase
		next.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready, LastTransitionTime: metav1.NewTime(time.Now().Add(-ago))}}
		return p.Client.Status().Patch(ctx, next, client.StrategicMergeFrom(pod))
	}
}

func deleted(options ...client.DeleteOption) func(context.Context, *plane, *corev1.Pod) error {
	return func(ctx context.Context, p *plane, pod *corev1.Pod) error {
		return p.Client.Delete(ctx, pod, options...)
	}
}

// clear removes all that a history has left.
func (p *plane) clear(ctx context.Context) error {
	in := client.InNamespace(p.namespace)
	var failed error
	gone := func() bool {
		objects := p.objects()
		// Again whenever something has changed: a controller may have made one more meanwhile.
		failed = errors.Join(p.Client.DeleteAllOf(ctx, &appsv1.Deployment{}, in), p.Client.DeleteAllOf(ctx, &appsv1.ReplicaSet{}, in),
			p.Client.DeleteAllOf(ctx, &corev1.Pod{}, in, client.GracePeriodSeconds(0)))
		return len(objects) == 0
	}
	return errors.Join(p.await(ctx, gone), failed)
}

func deploymentIn(objects []client.Object) *appsv1.Deployment {
	for _, o := range objects {
		if d, ok := o.(*appsv1.Deployment); ok {
			return d
		}
	}
	return nil
}
