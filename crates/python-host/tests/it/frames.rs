//! Frames: what goes in comes out, and nothing that arrives can do harm.

use gust_python_host::{Error, frame};
use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no others", |number| number.is_finite()).prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::btree_map(".*", inner, 0..8).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

proptest! {
    #[test]
    fn a_body_comes_out_as_it_went_in(id in any::<i64>(), body in json_value()) {
        let bytes = frame::encode(&(id, &body)).unwrap();
        let payload = runtime().block_on(frame::read_payload(&mut &bytes[..], usize::MAX)).unwrap().unwrap();
        let read = frame::decode_request(&payload).unwrap();
        prop_assert_eq!((read.id, read.body, read.carrier), (id, body, None));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        if let Ok(Some(payload)) = runtime().block_on(frame::read_payload(&mut &bytes[..], 1024)) {
            drop(frame::decode_request(&payload));
        }
        drop(frame::decode_request(&bytes));
    }
}

#[tokio::test]
async fn an_announced_size_over_the_limit_is_refused_before_it_is_read() {
    let mut bytes = &[0x7f, 0xff, 0xff, 0xff, 1, 2][..];
    let problem = frame::read_payload(&mut bytes, 1024).await.unwrap_err();
    assert!(matches!(problem, Error::FrameTooLarge { size: 0x7fff_ffff, limit: 1024 }), "{problem}");
}

#[rstest]
#[case::inside_the_length(&[0, 0])]
#[case::inside_the_body(&[0, 0, 0, 9, 1, 2])]
#[tokio::test]
async fn an_end_inside_a_frame_is_an_error(#[case] mut bytes: &[u8]) {
    let problem = frame::read_payload(&mut bytes, 1024).await.unwrap_err();
    assert!(matches!(problem, Error::MalformedFrame(_)), "{problem}");
}

#[tokio::test]
async fn an_end_between_frames_is_none() {
    assert!(frame::read_payload(&mut &[][..], 1024).await.unwrap().is_none());
}

#[rstest]
#[case::not_an_array(json!({"id": 1}), "not an array")]
#[case::no_id(json!(["x", {}]), "integer id")]
#[case::no_body(json!([1]), "integer id")]
fn another_shape_is_refused_by_name(#[case] message: Value, #[case] told: &str) {
    let bytes = frame::encode(&message).unwrap();
    let problem = frame::decode_request(&bytes[4..]).unwrap_err().to_string();
    assert!(problem.contains(told), "{problem}");
}

#[rstest]
#[case::seconds(&[0xd6, 0xff, 0x65, 0x53, 0xf1, 0x00], json!("2023-11-14T22:13:20Z"))]
#[case::micros(&[0xd7, 0xff, 0x00, 0x00, 0x0f, 0xa0, 0x65, 0x53, 0xf1, 0x00], json!("2023-11-14T22:13:20.000001Z"))]
#[case::early(
    &[0xc7, 12, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    json!("1969-12-31T23:59:59Z")
)]
#[case::bytes(&[0xc4, 2, 0xff, 0x00], json!("/wA="))]
#[case::nan(&[0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0], json!("nan"))]
#[case::minus_infinity(&[0xcb, 0xff, 0xf0, 0, 0, 0, 0, 0, 0], json!("-inf"))]
fn what_json_lacks_has_a_form(#[case] body: &[u8], #[case] read: Value) {
    let payload = [&[0x92, 0x01], body].concat();
    assert_eq!(frame::decode_request(&payload).unwrap().body, read);
}
