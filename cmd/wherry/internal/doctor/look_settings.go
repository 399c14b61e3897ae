package doctor

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// brokerSettings asks each broker for its settings.
func (g *gathering) brokerSettings(ctx context.Context) {
	failed := g.each(ctx, func(ctx context.Context, b *Broker) error {
		all, err := describe(ctx, g.Client.Broker(int(b.ID)), kmsg.ConfigResourceTypeBroker, strconv.Itoa(int(b.ID)))
		if err == nil {
			b.Settings, err = all[0].settings, all[0].err
		}
		return err
	})
	for id, err := range failed {
		what := fmt.Sprintf("the settings of broker %d", id)
		if denied(err) {
			what = "the settings of the brokers"
		}
		g.missed(what, "DESCRIBE_CONFIGS on CLUSTER", err)
	}
}

// described are the settings of one resource.
type described struct {
	name     string
	settings Settings
	err      error
}

// describe asks for settings. kadm would not say which of them are fixed.
func describe(ctx context.Context, cl kmsg.Requestor, kind kmsg.ConfigResourceType, names ...string) ([]described, error) {
	req := kmsg.NewPtrDescribeConfigsRequest()
	for _, name := range names {
		r := kmsg.NewDescribeConfigsRequestResource()
		r.ResourceType, r.ResourceName = kind, name
		req.Resources = append(req.Resources, r)
	}
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return nil, err
	}
	var all []described
	for _, r := range resp.Resources {
		d := described{name: r.ResourceName, err: kerr.ErrorForCode(r.ErrorCode)}
		if d.err == nil {
			d.settings = Settings{}
			for _, c := range r.Configs {
				if c.Value != nil {
					d.settings[c.Name] = Setting{*c.Value, c.ReadOnly}
				}
			}
		}
		all = append(all, d)
	}
	if len(all) == 0 {
		return nil, errors.New("there was no answer")
	}
	return all, nil
}
