package kafkatest

import (
	"encoding/binary"
	"reflect"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// answersAsAWhole are the kinds of request whose answer has one error for all, or
// has one that clients look at first.
var answersAsAWhole = []kmsg.Key{
	kmsg.JoinGroup, kmsg.SyncGroup, kmsg.Heartbeat, kmsg.LeaveGroup, kmsg.ConsumerGroupHeartbeat,
	kmsg.InitProducerID, kmsg.AddOffsetsToTxn, kmsg.EndTxn,
}

// answersInParts are those whose answer has an error for each part of the request.
var answersInParts = []kmsg.Key{
	kmsg.Produce, kmsg.Fetch, kmsg.ListOffsets, kmsg.OffsetForLeaderEpoch,
	kmsg.OffsetCommit, kmsg.OffsetFetch, kmsg.TxnOffsetCommit, kmsg.AddPartitionsToTxn,
	kmsg.FindCoordinator, kmsg.CreateTopics, kmsg.DeleteTopics,
}

// aboutParts are the errors of a fetch of offsets that concern a partition; all
// others concern the group.
var aboutParts = []*kerr.Error{kerr.UnstableOffsetCommit, kerr.UnknownTopicOrPartition, kerr.TopicAuthorizationFailed, kerr.UnknownTopicID}

// aboutSession are the errors of a fetch that concern its session.
var aboutSession = []*kerr.Error{kerr.FetchSessionIDNotFound, kerr.InvalidFetchSessionEpoch, kerr.FetchSessionTopicIDError, kerr.InconsistentTopicID}

func refusable(key kmsg.Key) bool {
	return slices.Contains(answersAsAWhole, key) || slices.Contains(answersInParts, key)
}

// refusal is the answer to a request that says nothing but the error.
func refusal(r *request, err *kerr.Error) []byte {
	req := r.parse()
	if req == nil {
		req = r.key.Request()
		req.SetVersion(r.version)
	}
	resp := req.ResponseKind()
	whole := slices.Contains(answersAsAWhole, r.key) ||
		r.key == kmsg.OffsetFetch && !slices.Contains(aboutParts, err) ||
		r.key == kmsg.Fetch && slices.Contains(aboutSession, err)
	reflect.ValueOf(resp).MethodByName("Default").Call(nil)
	top := reflect.ValueOf(resp).Elem()
	if whole {
		mirror(top, reflect.ValueOf(req).Elem(), 0)
		setCode(top, err.Code)
	} else {
		mirror(top, reflect.ValueOf(req).Elem(), err.Code)
	}
	exceptions(req, resp, whole, err.Code)
	var body []byte
	if resp.IsFlexible() {
		body = append(body, 0) // no tags
	}
	body = resp.AppendTo(body)
	frame := binary.BigEndian.AppendUint32(nil, uint32(4+len(body)))
	frame = binary.BigEndian.AppendUint32(frame, uint32(r.corr))
	return append(frame, body...)
}

// exceptions mends what mirror does not know.
func exceptions(req kmsg.Request, resp kmsg.Response, whole bool, code int16) {
	switch resp := resp.(type) {
	case *kmsg.FindCoordinatorResponse:
		resp.NodeID = -1
		for _, key := range req.(*kmsg.FindCoordinatorRequest).CoordinatorKeys { // named otherwise in the answer
			c := kmsg.NewFindCoordinatorResponseCoordinator()
			c.Key, c.NodeID, c.ErrorCode = key, -1, code
			resp.Coordinators = append(resp.Coordinators, c)
		}
	case *kmsg.OffsetFetchResponse:
		for i := range resp.Groups { // several wholes in one answer
			if whole {
				resp.Groups[i].ErrorCode = code
			}
		}
	case *kmsg.DeleteTopicsResponse:
		for _, name := range req.(*kmsg.DeleteTopicsRequest).TopicNames { // before version 6
			topic := kmsg.NewDeleteTopicsResponseTopic()
			topic.Topic, topic.ErrorCode = &name, code
			resp.Topics = append(resp.Topics, topic)
		}
	}
}

// mirror makes of a part of a request the same part of its answer: fields of one
// name and type are copied, lists get as many elements, and the error code goes
// to the innermost parts that have one. It tells whether there was any.
func mirror(to, from reflect.Value, code int16) (set bool) {
	for i := range to.NumField() {
		field := to.Type().Field(i)
		if !field.IsExported() || field.Name == "Version" || field.Name == "UnknownTags" {
			continue
		}
		src, dst := from.FieldByName(field.Name), to.Field(i)
		switch {
		case !src.IsValid():
		case isParts(dst.Type()):
			for j := range src.Len() {
				part := reflect.New(dst.Type().Elem())
				part.MethodByName("Default").Call(nil)
				if elem := src.Index(j); elem.Kind() == reflect.Int32 { // the number of a partition, alone
					part.Elem().FieldByName("Partition").SetInt(elem.Int())
					set = setCode(part.Elem(), code) || set
				} else {
					set = mirror(part.Elem(), elem, code) || set
				}
				dst.Set(reflect.Append(dst, part.Elem()))
			}
		case dst.Type() == src.Type():
			dst.Set(src)
		}
	}
	return set || setCode(to, code)
}

// isParts tells whether a field of an answer lists parts.
func isParts(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct
}

// setCode sets a part's error code, if it has one.
func setCode(part reflect.Value, code int16) bool {
	f := part.FieldByName("ErrorCode")
	if f.IsValid() {
		f.SetInt(int64(code))
	}
	return f.IsValid()
}
