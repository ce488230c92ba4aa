//! Every byte that the Java store wrote, read and written again by `format`, and held against what the Java store
//! said of it. Only stores without damage: `written` and `live`.

mod support;

#[test]
fn archives_list_and_unpack() {
    let names = support::stores("written");
    assert_eq!(names.len(), 18);
    for golden in support::unpack_all("written") {
        for file in golden.manifest()["files"].as_array().unwrap() {
            let path = golden.path(file["path"].as_str().unwrap());
            assert_eq!(std::fs::metadata(&path).unwrap().len(), file["size"].as_u64().unwrap());
        }
        golden.config();
        assert!(!golden.expected_of("load").is_empty());
    }
}

#[test]
fn broker_unpacks() {
    let broker = support::broker();
    assert_eq!(broker.expected_of("load").len(), 1);
    println!("{:?}", broker.list("config"));
}
