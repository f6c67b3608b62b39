//! Many small objects through the engine, for the comparison with other programs: `brigade-many up FOLDER
//! s3://BUCKET/PREFIX` and `brigade-many down s3://BUCKET/PREFIX FOLDER`.
//!
//! The command has no folders yet. A download takes its keys from the last word of the prefix, `COUNTxSIZE`,
//! as the floor's store names them, without asking for a list.

use std::path::{Path, PathBuf};

use brigade::{DownloadOptions, ManyReport, Session, SessionOptions, UploadOptions};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let report = match words[..] {
        ["up", folder, url] => futures::executor::block_on(up(Path::new(folder), url)),
        ["down", url, folder] => futures::executor::block_on(down(url, Path::new(folder))),
        _ => {
            eprintln!(
                "usage: brigade-many up FOLDER s3://BUCKET/PREFIX | down s3://BUCKET/PREFIX FOLDER"
            );
            std::process::exit(2);
        }
    };
    for (what, why) in report.failed.iter().take(3) {
        eprintln!("{what}: {why}");
    }
    if !report.failed.is_empty() || report.unverified > 0 {
        eprintln!("{} failed, {} unverified", report.failed.len(), report.unverified);
        std::process::exit(1);
    }
}

async fn session() -> Session {
    Session::new(SessionOptions::default()).await.expect("a session")
}

fn parse(url: &str) -> (&str, &str) {
    let rest = url.strip_prefix("s3://").expect("s3://BUCKET/PREFIX");
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    (bucket, prefix.trim_end_matches('/'))
}

async fn up(folder: &Path, url: &str) -> ManyReport {
    let (bucket, prefix) = parse(url);
    let (folder, prefix) = (folder.to_owned(), prefix.to_owned());
    let files = std::fs::read_dir(folder).expect("a folder").map(move |entry| {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (path, format!("{prefix}/{name}"))
    });
    let bucket = session().await.bucket(bucket);
    bucket.upload_files(files, UploadOptions::default()).await.expect("a report")
}

async fn down(url: &str, folder: &Path) -> ManyReport {
    let (bucket, prefix) = parse(url);
    let (folder, prefix) = (folder.to_owned(), prefix.to_owned());
    let count = prefix.rsplit('/').next().and_then(|set| set.split_once('x'));
    let count: u32 = count.and_then(|(count, _)| count.parse().ok()).expect("COUNTxSIZE");
    let objects = (0..count).map(move |number| {
        let name = format!("{number:06}");
        let path: PathBuf = folder.join(&name);
        (format!("{prefix}/{name}"), path)
    });
    let bucket = session().await.bucket(bucket);
    bucket.download_files(objects, DownloadOptions::default()).await.expect("a report")
}
