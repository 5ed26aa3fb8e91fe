// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// errWatchEnded asks for a new list.
var errWatchEnded = errors.New("the watch ended")

// Selected are the objects that a Follow is about.
type Selected struct {
	// List is an empty list of their kind.
	List client.ObjectList
	// Options select them; none: all of the cluster.
	Options []client.ListOption
}

// Follow lists objects and hands the whole state to see: at first, and after each change. It ends when
// see returns true (nil), or when ctx ends (its error). An API server that restarts does not end it. T is the type
// of the list's items.
func Follow[T client.Object](ctx context.Context, c client.WithWatch, what Selected, see func(map[types.UID]T) bool) error {
	for {
		err := followOnce(ctx, c, what, see)
		if ctx.Err() != nil {
			return errors.Join(ctx.Err(), err)
		}
		switch {
		case errors.Is(err, errWatchEnded):
		case restarting(err):
			pause(ctx)
		default:
			return err
		}
	}
}

// restarting says whether an error is what an API server that restarts makes of requests.
func restarting(err error) bool {
	return utilnet.IsConnectionRefused(err) || utilnet.IsConnectionReset(err) || utilnet.IsProbableEOF(err) ||
		utilnet.IsHTTP2ConnectionLost(err) || utilnet.IsTimeout(err) || apierrors.IsServiceUnavailable(err) || apierrors.IsTooManyRequests(err)
}

// pause is as long as it takes to ask again without harm.
func pause(ctx context.Context) {
	timer := time.NewTimer(200 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func followOnce[T client.Object](ctx context.Context, c client.WithWatch, what Selected, see func(map[types.UID]T) bool) error {
	list := what.List.DeepCopyObject().(client.ObjectList)
	if err := c.List(ctx, list, what.Options...); err != nil {
		return fmt.Errorf("listing %T: %w", list, err)
	}
	state := map[types.UID]T{}
	err := meta.EachListItem(list, func(o runtime.Object) error {
		item := o.DeepCopyObject().(T)
		state[item.GetUID()] = item
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading %T: %w", list, err)
	}
	if see(state) {
		return nil
	}
	from := &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: list.GetResourceVersion()}}
	w, err := c.Watch(ctx, list, append([]client.ListOption{from}, what.Options...)...)
	if err != nil {
		return fmt.Errorf("watching %T: %w", list, err)
	}
	defer w.Stop()
	for event := range w.ResultChan() {
		item, ok := event.Object.(T)
		if !ok { // an error: the resource version is too old, or the server restarts
			return errWatchEnded
		}
		if event.Type == watch.Deleted {
			delete(state, item.GetUID())
		} else {
			state[item.GetUID()] = item
		}
		if see(state) {
			return nil
		}
	}
	return errWatchEnded
}

// one is the object of that name in the state; false when it isn't there.
func one[T client.Object](state map[types.UID]T, name string) (T, bool) {
	for _, o := range state {
		if o.GetName() == name {
			return o, true
		}
	}
	var none T
	return none, false
}
