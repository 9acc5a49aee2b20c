"""Small data of other makes, as real files: what tests of the conversion read."""

import csv
import os
import pathlib
import struct

import numpy as np


def replay(folder, count=6, actions=4):
    """A folder of .npz episodes as DreamerV3 keeps them: rewards with the frame they led to. Episode i has 4 + i frames."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        t = np.arange(4 + i)
        np.savez(
            folder / f'{i:03d}.npz',
            image=np.random.default_rng(i).integers(0, 256, (4 + i, 32, 32, 3)).astype(np.uint8),
            action=np.eye(actions, dtype=np.float32)[(t + i) % actions],
            reward=(10 * i + t).astype(np.float32),
            is_first=t == 0,
            is_last=t == 3 + i,
            is_terminal=(t == 3 + i) & (i % 2 == 0),
        )
    return str(folder)


def rlds(folder, nested=True, form='array_record', lengths=(3, 4, 5, 6)):
    """A TFDS dataset with splits train and val. Frame t shows 40 + t; action and reward of step t are t % 3 and 10 + t."""
    import tensorflow_datasets as tfds

    f = tfds.features

    def steps(length):
        for t in range(length):
            yield {
                'observation': {
                    'image': np.full((32, 32, 3), 40 + t, np.uint8),
                    'speed': np.array([t, -t], np.float32),
                },
                'action': t % 3,
                'reward': np.float32(10 + t),
                'discount': np.float32(1),
                'is_first': t == 0,
                'is_last': t == length - 1,
                'is_terminal': t == length - 1,
                'instruction': 'go',
            }

    step = {
        'observation': {
            'image': f.Tensor(shape=(32, 32, 3), dtype=np.uint8),
            'speed': f.Tensor(shape=(2,), dtype=np.float32),
        },
        'action': f.ClassLabel(names=['left', 'right', 'stay']),
        'reward': np.float32,
        'discount': np.float32,
        'is_first': np.bool_,
        'is_last': np.bool_,
        'is_terminal': np.bool_,
        'instruction': f.Text(),
    }

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version('1.0.0')
        name = 'driving'
        url_infos = {}  # noqa: RUF012

        def _info(self):
            whole = {'steps': f.Dataset(step), 'episode_metadata': {'file': f.Text(), 'number': np.int64}}
            flat = {name: f.Sequence(feature) for name, feature in step.items()}
            features = f.FeaturesDict(whole if nested else flat)
            return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

        def _split_generators(self, dl_manager):
            return {'train': self._some(lengths), 'val': self._some(lengths[:2])}

        def _some(self, lengths):
            for i, length in enumerate(lengths):
                listed = list(steps(length))
                if nested:
                    yield i, {'steps': listed, 'episode_metadata': {'file': f'{i}.bag', 'number': i}}
                else:
                    yield i, {name: [row[name] for row in listed] for name in step}

        def _generate_examples(self):
            raise NotImplementedError

    tfds.disable_progress_bar()
    builder = Builder(data_dir=str(folder), file_format='array_record')
    builder.download_and_prepare()
    path = str(builder.data_path)
    if form == 'tfrecord':
        _as_tfrecord(path, builder)
    return path


def _as_tfrecord(path, builder):
    """The same records in TFRecord files, whose checksums are left zero."""
    from array_record.python.array_record_module import ArrayRecordReader

    for name in os.listdir(path):
        if 'array_record' in name:
            reader = ArrayRecordReader(os.path.join(path, name))
            records = reader.read_all()
            reader.close()
            with open(os.path.join(path, name.replace('array_record', 'tfrecord')), 'wb') as file:
                for record in records:
                    file.write(struct.pack('<QI', len(record), 0) + record + struct.pack('<I', 0))
            os.remove(os.path.join(path, name))
    info = pathlib.Path(path, 'dataset_info.json')
    info.write_text(info.read_text().replace('array_record', 'tfrecord'))


def cartpole(root, episodes=3):
    """A Minari dataset of CartPole under random actions, and its folder."""
    import warnings

    import gymnasium
    import minari

    os.environ['MINARI_DATASETS_PATH'] = str(root)
    environment = minari.DataCollector(gymnasium.make('CartPole-v1'))
    environment.action_space.seed(0)
    for i in range(episodes):
        environment.reset(seed=i)
        ended = False
        while not ended:
            *_, terminated, truncated, _ = environment.step(environment.action_space.sample())
            ended = terminated or truncated
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        environment.create_dataset('cartpole/random-v0', algorithm_name='random', description='random actions')
    environment.close()
    return os.path.join(str(root), 'cartpole', 'random-v0')


def video(path, frames=20, size=(48, 64), rate=10, codec='libx264', pictures=None):
    """A video of `pictures` (T, H, W, 3), or one whose frame t has the brightness 10 t."""
    import av

    if pictures is None:
        pictures = [np.full((*size, 3), 10 * t, np.uint8) for t in range(frames)]
    size = pictures[0].shape[:2]

    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w') as out:
        stream = out.add_stream(codec, rate=rate)
        stream.height, stream.width = size
        stream.pix_fmt = 'rgb8' if codec == 'gif' else 'yuv420p'
        for picture in pictures:
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format='rgb24')):
                out.mux(packet)
        for packet in stream.encode():
            out.mux(packet)


def rows(path, actions, rewards):
    """A .csv of what was done at each frame of a video."""
    with open(path, 'w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['action', 'reward'])
        writer.writerows(zip(actions, rewards, strict=True))
