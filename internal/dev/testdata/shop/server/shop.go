package main

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	shopv1 "github.com/Acme/shop/gen/acme/shop/v1"
)

type shop struct{}

var _ shopv1.ShopService = shop{}

func (shop) Order(_ context.Context, req *shopv1.OrderRequest) (*shopv1.OrderResponse, error) {
	resp := &shopv1.OrderResponse{Numbers: map[string]uint32{}}
	for _, item := range req.GetItems() {
		resp.Numbers[item.GetGoods().GetKind().String()] += item.GetNumber()
	}
	switch way := req.GetWay().(type) {
	case *shopv1.OrderRequest_Address:
		resp.Way = "to " + way.Address
	case *shopv1.OrderRequest_Fetch:
		resp.Way = "fetched"
	}
	return resp, nil
}

func (shop) Follow(_ context.Context, _ *shopv1.FollowRequest, stream shopv1.Shop_FollowServer) error {
	for i, state := range []shopv1.FollowResponse_State{
		shopv1.FollowResponse_STATE_PACKED, shopv1.FollowResponse_STATE_SENT,
	} {
		took := durationpb.New(time.Duration(i) * time.Second)
		if err := stream.Send(&shopv1.FollowResponse{State: state, Took: took}); err != nil {
			return err
		}
	}
	return nil
}

func (shop) Fill(_ context.Context, stream shopv1.Shop_FillServer) (*shopv1.FillResponse, error) {
	for number := uint32(0); ; number++ {
		if _, err := stream.Recv(); errors.Is(err, io.EOF) {
			return &shopv1.FillResponse{Number: number}, nil
		} else if err != nil {
			return nil, err
		}
	}
}

func (shop) Haggle(_ context.Context, stream shopv1.Shop_HaggleServer) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.Send(&shopv1.HaggleResponse{Price: req.GetPrice() / 2}); err != nil {
			return err
		}
	}
}

type desk struct{}

var _ shopv1.DeskService = desk{}

func (desk) Ring(context.Context, *shopv1.RingRequest) (*shopv1.RingResponse, error) {
	return &shopv1.RingResponse{Words: "Good day!"}, nil
}
