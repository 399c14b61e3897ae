package embedded

import (
	"regexp"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// legal is what Apache Kafka takes as the name of a topic.
var legal = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)

// autoCreate makes cluster create the topics that a Metadata request names and
// that do not exist, if the request allows it; before version 4 it always
// does.
//
// kfake has an option for this, but writes such topics to the folder only at
// its end: a kill loses them with all their records.
func autoCreate(cluster *kfake.Cluster) {
	key := int16(kmsg.Metadata)
	var control func(kmsg.Request) (kmsg.Response, error, bool)
	control = func(kreq kmsg.Request) (kmsg.Response, error, bool) { //nolint:unparam // the signature is kfake's
		// kfake keeps, per control function, each connection that it was
		// called for: a new one each time keeps none.
		cluster.DropControl()
		cluster.ControlKey(key, control)

		req, ok := kreq.(*kmsg.MetadataRequest)
		if !ok || req.Version >= 4 && !req.AllowAutoTopicCreation {
			return nil, nil, false
		}
		for _, t := range req.Topics {
			if t.Topic == nil || *t.Topic == "." || *t.Topic == ".." || !legal.MatchString(*t.Topic) {
				continue
			}
			if cluster.TopicInfo(*t.Topic) == nil {
				// What cannot be created stays unknown, and the answer to the
				// request says so.
				_ = cluster.CreateTopic(*t.Topic, 0, nil)
			}
		}
		return nil, nil, false
	}
	cluster.ControlKey(key, control)
}
